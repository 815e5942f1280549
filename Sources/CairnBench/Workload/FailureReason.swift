import CairnClient

/// Under which name a failure is counted.
enum FailureReason {
    /// The server's reason, such as THROTTLED; else the client library's, in the same style.
    static func name(_ error: ClientError) -> String {
        if let answer = error.answer { return answer.reason.description }
        return switch error.code {
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
        case .source, .target: "FILE"
        }
    }
}
