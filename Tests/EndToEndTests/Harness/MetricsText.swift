import Testing

/// A sample's value in the server's metrics; 0 of one that they do not have.
func sample(_ name: String, in metrics: String) throws -> Int {
    for line in metrics.split(separator: "\n") where line.hasPrefix(name + " ") {
        return try #require(Int(line.dropFirst(name.count + 1)))
    }
    return 0
}
