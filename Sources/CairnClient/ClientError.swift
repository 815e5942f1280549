public import CairnWire

/// Why a call or a transfer failed.
public struct ClientError: Error, Sendable, CustomStringConvertible {
    /// What happened, for programs.
    public enum Code: Sendable, Equatable {
        /// The server answered with an error: ``ClientError/answer`` says which.
        case answered
        /// The server refused the connection: ``ClientError/answer`` says why, where it said so.
        case refused
        /// No connection within the limits: no such host, nobody listens, or no answer.
        case unreachable
        /// TLS failed: a certificate was not accepted on one side, or the peer speaks something else.
        case insecure
        /// The connection was lost, and the call must not or could not be repeated in time.
        case connectionLost
        /// The call's time was over before its answer came.
        case timedOut
        /// The caller's task or transfer was cancelled.
        case cancelled
        /// The server broke the protocol, or gave an answer that contradicts the request.
        case protocolViolation
        /// Received data is not what its checksum, token or seal says.
        case damaged
        /// The request is beyond a limit of the server or the library, and was not sent.
        case invalidRequest
        /// Certificates, keys or options are missing or unusable.
        case configuration
        /// What was to be imported cannot be read.
        case source
        /// What was to be written cannot be created or written.
        case target
    }

    public let code: Code
    /// What the server answered; nil unless it did.
    public let answer: CallError?
    /// The system's error number behind `source` and `target`; 0 where there is none.
    public let errno: Int32
    /// For people: one line.
    public let text: String
    /// Whether an earlier attempt of the call, whose answer was lost or left that open, may have been carried out (SPEC C5).
    var isOfRepetition = false

    public init(_ code: Code, _ text: String, answer: CallError? = nil, errno: Int32 = 0) {
        self.code = code
        self.text = text
        self.answer = answer
        self.errno = errno
    }

    public var description: String { text }

    /// What happened, as one word for reports: the server's reason, such as THROTTLED; else ``code`` in the same style.
    public var reason: String {
        if let answer { return answer.reason.description }
        return switch code {
        case .answered, .refused: "REFUSED"
        case .unreachable: "UNREACHABLE"
        case .insecure: "INSECURE"
        case .connectionLost: "CONNECTION_LOST"
        case .timedOut: "TIMED_OUT"
        case .cancelled: "CANCELLED"
        case .protocolViolation: "PROTOCOL_VIOLATION"
        case .damaged: "DAMAGED"
        case .invalidRequest: "INVALID_REQUEST"
        case .configuration: "CONFIGURATION"
        case .source: "SOURCE"
        case .target: "TARGET"
        }
    }

    /// The same error, its text led by where it happened.
    func within(_ place: String) -> ClientError {
        var error = ClientError(code, "\(place): \(text)", answer: answer, errno: errno)
        error.isOfRepetition = isOfRepetition
        return error
    }

    static let cancelled = ClientError(.cancelled, "cancelled")
}
