internal import CairnRPC
internal import CairnWire

/// How RPC's errors become the library's: in this file only.
extension ClientError {
    init(_ failure: RPCError) {
        let answer = CallError(answered: failure)
        let text = answer.map(\.description) ?? failure.description
        switch failure.code {
        case .answered: self.init(.answered, text, answer: answer)
        case .refused: self.init(.refused, "the server refused the connection: \(text)", answer: answer)
        case .cancelled: self = .cancelled
        case .deadlineExceeded: self.init(.timedOut, "no answer in time")
        case .unreachable: self.init(.unreachable, failure.text.isEmpty ? "the server cannot be reached" : failure.text)
        case .insecure: self.init(.insecure, failure.text.isEmpty ? "TLS failed" : failure.text)
        case .connectionLost, .goingAway:
            self.init(.connectionLost, failure.text.isEmpty ? "the connection was lost" : failure.text)
        case .tooLarge: self.init(.invalidRequest, failure.text.isEmpty ? "the request is too large" : failure.text)
        case .protocolViolation: self.init(.protocolViolation, failure.description)
        }
    }
}

extension CallError {
    /// What the server said; nil where `failure` is not the server's word.
    init?(answered failure: RPCError) {
        guard failure.code == .answered || failure.code == .refused else { return nil }
        self.init(status: failure.status, detail: failure.detail)
    }
}
