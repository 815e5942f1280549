/// Why a measurement could not be made, or a file of one not read.
public struct BenchError: Error, Sendable, Equatable, CustomStringConvertible {
    public enum Code: Sendable, Equatable {
        /// Settings that contradict each other or go beyond a limit.
        case invalid
        /// A file cannot be read or written, or is no measurement.
        case file
        /// The server refused what the measurement needs before it can begin.
        case setUp
        /// This machine lacks something.
        case machine
    }
    public let code: Code
    /// For people: one line.
    public let text: String

    public init(_ code: Code, _ text: String) {
        self.code = code
        self.text = text
    }
    public var description: String { text }
}
