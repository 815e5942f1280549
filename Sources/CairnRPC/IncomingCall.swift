public import CairnCore

/// A call that the peer made: answered exactly once, from any thread; a second answer is ignored. A call that is dropped
/// without an answer is answered INTERNAL.
public final class IncomingCall: Sendable {
    /// The method's number, as the peer gave it.
    public let method: UInt32
    /// The connection that the call came on.
    public let connection: RPCConnection
    /// When the caller stops waiting, in nanoseconds of `DispatchTime`'s uptime clock; nil: never.
    public let deadline: UInt64?

    init(method: UInt32, connection: RPCConnection, deadline: UInt64?) {
        self.method = method
        self.connection = connection
        self.deadline = deadline
    }

    /// The encoded message; empty once the request was released.
    public var message: [UInt8] { fatalError("skeleton") }
    /// The raw bytes behind the message; nil when there were none, and once the request was released.
    public var payload: BufferSlice? { fatalError("skeleton") }
    /// Whether the caller gave up: cancelled, past its deadline, or its connection is gone. Cheap, from any thread.
    /// Whoever starts work that cannot be undone looks here first, and ends the call with ``abandon()``.
    public var isCancelled: Bool { fatalError("skeleton") }
    /// Calls `body` on the loop when the caller gives up; at once if it already did. Not called after the answer.
    public func onCancel(_ body: @escaping @Sendable () -> Void) { fatalError("skeleton") }
    /// Charges the largest answer that this call can have to the connection's budget, and calls `body` on the loop when there
    /// is room: at once, or when earlier answers have left. `body` is never called once the call has ended: a call whose
    /// caller gives up while it waits here is answered for the handler. The charge is given back when the answer was written.
    public func chargeAnswer(_ bytes: Int, then body: @escaping @Sendable () -> Void) { fatalError("skeleton") }
    /// Answers the call and releases the request.
    public func reply(message: [UInt8], payload: [BufferSlice] = []) { fatalError("skeleton") }
    /// Answers the call with an error (`status` is not 0) and releases the request.
    public func fail(status: UInt32, detail: [UInt8]) { fatalError("skeleton") }
    /// Ends a call whose caller gave up: answers CANCELLED or DEADLINE_EXCEEDED.
    public func abandon() { fatalError("skeleton") }
    /// Gives the request's buffers, and so the caller's credit, back before the answer.
    public func releaseRequest() { fatalError("skeleton") }
}
