/// How many there are of each key; one of which there is none takes no memory.
public struct Tally<Key: Hashable> {
    private var counts: [Key: Int] = [:]

    public init() {}

    public subscript(key: Key) -> Int { counts[key, default: 0] }

    public mutating func add(_ key: Key) { counts[key, default: 0] += 1 }

    public mutating func remove(_ key: Key) {
        let left = counts[key, default: 1] - 1
        counts[key] = left == 0 ? nil : left
    }
}

extension Tally: Sendable where Key: Sendable {}
