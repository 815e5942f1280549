public import CairnCore
internal import CairnWire

/// A call that the peer made: answered exactly once, from any thread; a second answer is ignored. A call that is dropped
/// without an answer is answered INTERNAL.
///
/// An answer means that the work has ended: nothing of the call happens after it. So a call whose caller gave up is not
/// answered behind its handler's back, unless it still waits for its turn.
public final class IncomingCall: Sendable {
    /// The method's number, as the peer gave it.
    public let method: UInt32
    /// The connection that the call came on.
    public let connection: RPCConnection
    /// When the caller stops waiting, in nanoseconds of `DispatchTime`'s uptime clock; nil: never.
    public let deadline: UInt64?
    let id: UInt64
    let state: CallState

    init(_ frame: Frame, connection: RPCConnection, deadline: UInt64?, hold: (any CallHold)?) {
        method = frame.header.method
        id = frame.header.callID
        self.connection = connection
        self.deadline = deadline
        state = CallState(frame, hold: hold)
    }

    deinit {
        guard state.end() != nil else { return }
        connection.finish(id, .failure(CallError(.internal, "the call was dropped")))
    }

    /// The encoded message; empty once the request was released.
    public var message: [UInt8] { state.message }
    /// The raw bytes behind the message; nil when there were none, and once the request was released.
    public var payload: BufferSlice? { state.payload }
    /// The bytes of the request, its frame's header included; of its header alone once it was released.
    public var requestBytes: Int { state.requestBytes }
    /// Whether the caller gave up: cancelled, past its deadline, or its connection is gone. Cheap, from any thread.
    /// Whoever starts work that cannot be undone looks here first, and ends the call with ``abandon()``.
    public var isCancelled: Bool { state.isCancelled }

    /// Calls `body` on the loop when the caller gives up; at once, on this thread, if it already did. Not called after the
    /// answer. `body` is held until then: one that holds this call keeps it from being answered by being dropped.
    public func onCancel(_ body: @escaping @Sendable () -> Void) { state.onCancel(body) }

    /// Charges the largest answer that this call can have to the connection's budget, and calls `body` on the loop when there
    /// is room: at once, or when earlier answers have left. `body` is never called once the call has ended: a call whose
    /// caller gives up before its turn comes is answered for the handler. The charge is given back when the answer was written.
    /// At most once for each call.
    public func chargeAnswer(_ bytes: Int, then body: @escaping @Sendable () -> Void) {
        connection.charge(id, bytes: bytes, then: body)
    }

    /// What the call was welcomed with (``CallHandler/expect(method:bytes:)``), or keeps; nil once it has ended.
    public var hold: (any CallHold)? { state.hold }

    /// Holds on to `hold` until the answer has left, or can no longer.
    public func keep(_ hold: any CallHold) { state.keep(hold) }

    /// Answers the call and releases the request.
    public func reply(message: [UInt8], payload: [BufferSlice] = []) {
        guard let remains = state.end() else { return }
        connection.finish(id, .success(ReadyAnswer(message: message, payload: payload, hold: remains.hold)))
    }

    /// Answers the call with an error (`status` is not 0) and releases the request.
    /// - Parameter detail: an encoded `cairn.v1.ErrorDetail`.
    public func fail(status: UInt32, detail: [UInt8]) {
        precondition(status > 0 && status <= 16, "a failure has one of gRPC's codes")
        guard let remains = state.end() else { return }
        connection.finish(id, .success(ReadyAnswer(status: status, message: detail, hold: remains.hold)))
    }

    /// Ends a call whose caller gave up: answers CANCELLED or DEADLINE_EXCEEDED.
    public func abandon() { connection.abandon(id, state) }

    /// Gives the request's buffers, and so the caller's credit, back before the answer.
    public func releaseRequest() { if state.releaseRequest() { connection.release(id) } }
}

/// An answer on its way to the loop.
struct ReadyAnswer: Sendable {
    var status: UInt32 = 0
    var message: [UInt8]
    var payload: [BufferSlice] = []
    /// Goes when the answer has left.
    var hold: (any CallHold)?

    var payloadBytes: Int { payload.reduce(0) { $0 + $1.count } }
}
