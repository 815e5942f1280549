internal import CairnCore
internal import CairnRPC
internal import CairnWire

/// A call on its way through the pool.
struct OutgoingCall: Sendable {
    let method: UInt32
    let message: [UInt8]
    var payload: [BufferSlice] = []
    /// Whether carrying it out twice does no harm.
    var repeatable = true
    /// The longest it may take in all; nil: the client's ``ClientOptions/callLimit``.
    var limit: Duration?
}

/// A call that was begun and can be given up.
protocol Cancellable: AnyObject, Sendable {
    func cancel()
}

/// Makes calls: what the client and the transfers stand on. The tests put a server of their own here.
protocol Caller: AnyObject, Sendable {
    /// Begins a call. `completion` is called exactly once, on any thread, also after a cancel; it must not block.
    @discardableResult
    func start(
        _ call: OutgoingCall,
        completion: @escaping @Sendable (Result<Answer, ClientError>) -> Void
    ) -> any Cancellable
}

extension Caller {
    /// Begins a typed call.
    @discardableResult
    func start<Message: WireRequest>(
        _ request: Message,
        payload: [BufferSlice] = [],
        repeatable: Bool = true,
        limit: Duration? = nil,
        completion: @escaping @Sendable (Result<(Message.Response, BufferSlice?), ClientError>) -> Void
    ) -> any Cancellable {
        let call = OutgoingCall(
            method: UInt32(Message.method.rawValue),
            message: request.encode(),
            payload: payload,
            repeatable: repeatable,
            limit: limit
        )
        return start(call) { result in
            completion(result.flatMap { answer in AnswerDecoding.decode(Message.self, answer) })
        }
    }

    /// Makes a typed call. Cancelling the task cancels the call.
    ///
    /// It goes on where its caller is, and so do the client's small calls that make it: each change of executors would cost as much as
    /// the encoding.
    nonisolated(nonsending) func call<Message: WireRequest>(
        _ request: Message,
        payload: [BufferSlice] = [],
        repeatable: Bool = true,
        limit: Duration? = nil
    ) async throws(ClientError) -> (Message.Response, BufferSlice?) {
        let cell = CancelCell()
        let result = await withTaskCancellationHandler {
            // Unchecked: a completion is called exactly once.
            await withUnsafeContinuation { continuation in
                cell.hold(
                    start(request, payload: payload, repeatable: repeatable, limit: limit) {
                        continuation.resume(returning: $0)
                    }
                )
            }
        } onCancel: {
            cell.cancel()
        }
        return try result.get()
    }
}

enum AnswerDecoding {
    static func decode<Message: WireRequest>(
        _: Message.Type,
        _ answer: Answer
    ) -> Result<(Message.Response, BufferSlice?), ClientError> {
        do throws(WireError) {
            return .success((try Message.Response.decode(answer.message), answer.payload))
        } catch {
            return .failure(
                ClientError(.protocolViolation, "the answer to \(Message.method.name) is malformed: \(error)")
            )
        }
    }
}
