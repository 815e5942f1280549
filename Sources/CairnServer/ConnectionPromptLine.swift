import CairnCore
import CairnRPC
import CairnService
import CairnWire
import Synchronization

/// Asks the client at the other end of a connection how far its snapshot is (SPEC S10).
final class ConnectionPromptLine: PromptLine {
    /// Nil once it has ended: what is asked may be remembered for days.
    private let connection: Mutex<RPCConnection?>
    /// Whether the client said that it takes no such calls.
    private let isUnsupported = Atomic<Bool>(false)

    init(_ connection: RPCConnection) {
        self.connection = Mutex(connection)
        connection.onClose { _ in self.connection.withLock { $0 = nil } }
    }

    func ask(_ snapshot: SnapshotID, limit: Duration, answer: @escaping @Sendable (PromptOutcome) -> Void) {
        guard !isUnsupported.load(ordering: .relaxed) else { return answer(.unsupported) }
        guard let connection = connection.withLock({ $0 }), connection.isOpen else { return answer(.gone) }
        let request = Request(
            method: UInt32(Wire.Method.promptProgress.rawValue),
            message: Wire.PromptProgressRequest(snapshotID: snapshot.bytes).encode(),
            timeout: limit
        )
        connection.call(request) { [self] result in answer(outcome(of: result)) }
    }

    private func outcome(of result: Result<CairnRPC.Answer, RPCError>) -> PromptOutcome {
        switch result {
        case .success(let answered):
            do throws(WireError) {
                return .percent(try Wire.PromptProgressResponse.decode(answered.message).percent)
            } catch { return .unanswered }
        case .failure(let error):
            switch error.code {
            case .answered:
                guard error.status == Status.unimplemented.rawValue else { return .unanswered }
                isUnsupported.store(true, ordering: .relaxed)
                return .unsupported
            case .connectionLost, .goingAway: return .gone
            default: return .unanswered
            }
        }
    }
}
