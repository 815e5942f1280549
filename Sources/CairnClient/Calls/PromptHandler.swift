internal import CairnCore
internal import CairnRPC
internal import CairnWire
internal import Synchronization

/// Who answers the server's prompts (SPEC S10): a transfer under way for its own snapshot, the user's callback for others.
final class ProgressPrompts: Sendable {
    typealias Answer = @Sendable (SnapshotID) async -> UInt32

    private let transfers = Mutex<[SnapshotID: @Sendable () -> UInt32]>([:])
    private let callback: Answer?

    init(_ callback: Answer?) { self.callback = callback }

    /// From now on `percent` answers for the snapshot.
    func answer(for snapshot: SnapshotID, by percent: @escaping @Sendable () -> UInt32) {
        transfers.withLock { $0[snapshot] = percent }
    }

    func noLongerAnswer(for snapshot: SnapshotID) { _ = transfers.withLock { $0.removeValue(forKey: snapshot) } }

    /// Nil: nobody here knows of prompts.
    func answer(for snapshot: SnapshotID) -> (@Sendable () async -> UInt32)? {
        if let percent = transfers.withLock({ $0[snapshot] }) { return { percent() } }
        guard let callback else { return nil }
        return { await callback(snapshot) }
    }
}

/// Takes the server's calls: prompts are answered, all else is unknown.
final class PromptHandler: CallHandler {
    private let prompts: ProgressPrompts

    init(_ prompts: ProgressPrompts) { self.prompts = prompts }

    func handle(_ call: IncomingCall) {
        guard call.method == UInt32(Wire.PromptProgressRequest.method.rawValue) else {
            return PromptHandler.fail(call, CallError(.unknownMethod, "a client answers PromptProgress only"))
        }
        guard let request = try? Wire.PromptProgressRequest.decode(call.message),
            let snapshot = SnapshotID(bytes: request.snapshotID)
        else {
            return PromptHandler.fail(call, CallError(.invalidArgument, "the prompt names no snapshot"))
        }
        guard let answer = prompts.answer(for: snapshot) else {
            return PromptHandler.fail(call, CallError(.unknownMethod, "nobody answers prompts here"))
        }
        // The callback may take its time: the loop does not wait for it.
        let task = Task {
            let percent = await answer()
            call.reply(message: Wire.PromptProgressResponse(percent: min(percent, 100)).encode())
        }
        call.onCancel {
            task.cancel()
            call.abandon()
        }
    }

    private static func fail(_ call: IncomingCall, _ error: CallError) {
        call.fail(status: error.status.rawValue, detail: error.detail.encode())
    }
}
