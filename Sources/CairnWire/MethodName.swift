extension Wire.Method {
    // `CREATE_VOLUME` -> `CreateVolume`, once for each method: names go into every log line and metric.
    private static let names: [Wire.Method: String] = Dictionary(
        uniqueKeysWithValues: allCases.map { method in
            let words = method.description.split(separator: "_")
            return (method, words.map { $0.prefix(1) + $0.dropFirst().lowercased() }.joined())
        }
    )

    /// The call's name, as the specification has it: `UploadBlock`. `Method(77)`, where this version knows none.
    public var name: String { Wire.Method.names[self] ?? "Method(\(rawValue))" }

    /// The method with a frame header's number; nil beyond what an enum of the contract can hold.
    public init?(header number: UInt32) {
        guard let rawValue = Int32(exactly: number) else { return nil }
        self.init(rawValue: rawValue)
    }
}
