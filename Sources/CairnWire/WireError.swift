/// Why bytes are no message of the contract.
public enum WireError: Error, Sendable, Hashable, CustomStringConvertible {
    /// The bytes are no encoding of this message.
    case malformed(message: String)
    /// A text in this message is no UTF-8, or holds U+0000.
    case invalidText(message: String)
    /// Reading this message would take more memory than is allowed.
    case overBudget(message: String)

    public var description: String {
        switch self {
        case .malformed(let message): "the bytes are no \(message)"
        case .invalidText(let message): "\(message) holds text that is no UTF-8, or holds U+0000"
        case .overBudget(let message): "\(message) would take too much memory"
        }
    }
}
