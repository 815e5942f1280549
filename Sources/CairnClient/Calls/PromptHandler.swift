internal import CairnCore
internal import CairnRPC
internal import CairnWire

/// Answers the server's prompts (SPEC S10) from the callback in ``ClientOptions/onProgressPrompt``; all else that a server
/// might ask is answered as unknown.
final class PromptHandler: CallHandler {
    private let answer: @Sendable (SnapshotID) async -> UInt32

    init(_ answer: @escaping @Sendable (SnapshotID) async -> UInt32) { self.answer = answer }

    func handle(_ call: IncomingCall) {
        guard call.method == UInt32(Wire.PromptProgressRequest.method.rawValue) else {
            return PromptHandler.fail(call, CallError(.unknownMethod, "a client answers PromptProgress only"))
        }
        guard let request = try? Wire.PromptProgressRequest.decode(call.message),
            let snapshot = SnapshotID(bytes: request.snapshotID)
        else {
            return PromptHandler.fail(call, CallError(.invalidArgument, "the prompt names no snapshot"))
        }
        // The callback may take its time: the loop does not wait for it.
        let task = Task { [answer] in
            let percent = await answer(snapshot)
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
