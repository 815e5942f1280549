public import CairnCore
internal import CairnWire
internal import Synchronization

/// A call that the peer made: answered exactly once, from any thread; a second answer is ignored. A call that is dropped
/// without an answer is answered INTERNAL.
///
/// An answer means that the work has ended: nothing of the call happens after it. So a call whose caller gave up is not
/// answered behind its handler's back, unless it still waits for its turn.
public final class IncomingCall: Sendable {
    /// Why the caller no longer waits.
    enum GivenUp: Sendable, Equatable {
        case cancelled, expired, disconnected
    }
    private struct State {
        var message: [UInt8]
        var payload: BufferSlice?
        var observers: [@Sendable () -> Void] = []
        var kept: [any AnyObject & Sendable] = []
        var givenUp: GivenUp?
        var hasEnded = false
        var hasReleased = false
    }

    /// The method's number, as the peer gave it.
    public let method: UInt32
    /// The connection that the call came on.
    public let connection: RPCConnection
    /// When the caller stops waiting, in nanoseconds of `DispatchTime`'s uptime clock; nil: never.
    public let deadline: UInt64?
    let id: UInt64
    private let state: Mutex<State>
    private let isGivenUp = Atomic<Bool>(false)

    init(_ frame: Frame, connection: RPCConnection, deadline: UInt64?) {
        method = frame.header.method
        id = frame.header.callID
        self.connection = connection
        self.deadline = deadline
        state = Mutex(State(message: frame.message, payload: frame.payload?.slice))
    }

    deinit {
        guard !state.withLock({ $0.hasEnded }) else { return }
        connection.finish(id, .failure(CallError(.internal, "the call was dropped")))
    }

    /// The encoded message; empty once the request was released.
    public var message: [UInt8] { state.withLock { $0.message } }
    /// The raw bytes behind the message; nil when there were none, and once the request was released.
    public var payload: BufferSlice? { state.withLock { $0.payload } }
    /// Whether the caller gave up: cancelled, past its deadline, or its connection is gone. Cheap, from any thread.
    /// Whoever starts work that cannot be undone looks here first, and ends the call with ``abandon()``.
    public var isCancelled: Bool { isGivenUp.load(ordering: .acquiring) }

    /// Calls `body` on the loop when the caller gives up; at once, on this thread, if it already did. Not called after the
    /// answer.
    public func onCancel(_ body: @escaping @Sendable () -> Void) {
        let isLate = state.withLock { state in
            guard !state.hasEnded else { return false }
            guard state.givenUp == nil else { return true }
            state.observers.append(body)
            return false
        }
        if isLate { body() }
    }

    /// Charges the largest answer that this call can have to the connection's budget, and calls `body` on the loop when there
    /// is room: at once, or when earlier answers have left. `body` is never called once the call has ended: a call whose
    /// caller gives up before its turn comes is answered for the handler. The charge is given back when the answer was written.
    /// At most once for each call.
    public func chargeAnswer(_ bytes: Int, then body: @escaping @Sendable () -> Void) {
        connection.charge(id, bytes: bytes, then: body)
    }

    /// Holds on to `thing` until the answer has left, or can no longer: its `deinit` says so.
    public func keep(_ thing: any AnyObject & Sendable) {
        state.withLock { state in
            if !state.hasEnded { state.kept.append(thing) }
        }
    }

    /// The bytes of the request, its frame's header included.
    public var requestBytes: Int {
        state.withLock { FrameHeader.byteCount + $0.message.count + ($0.payload?.count ?? 0) }
    }

    /// Answers the call and releases the request.
    public func reply(message: [UInt8], payload: [BufferSlice] = []) {
        guard let kept = end() else { return }
        connection.finish(id, .success(ReadyAnswer(message: message, payload: payload, kept: kept)))
    }

    /// Answers the call with an error (`status` is not 0) and releases the request.
    /// - Parameter detail: an encoded `cairn.v1.ErrorDetail`.
    public func fail(status: UInt32, detail: [UInt8]) {
        precondition(status > 0 && status <= 16, "a failure has one of gRPC's codes")
        guard let kept = end() else { return }
        connection.finish(id, .success(ReadyAnswer(status: status, message: detail, kept: kept)))
    }

    /// Ends a call whose caller gave up: answers CANCELLED or DEADLINE_EXCEEDED.
    public func abandon() {
        let reason: Wire.Reason = state.withLock { $0.givenUp } == .expired ? .deadlineExceeded : .cancelled
        guard end() != nil else { return }
        connection.finish(id, .failure(CallError(reason)))
    }

    /// Gives the request's buffers, and so the caller's credit, back before the answer.
    public func releaseRequest() {
        let isFirst = state.withLock { state in
            guard !state.hasEnded, !state.hasReleased else { return false }
            state.hasReleased = true
            state.message = []
            state.payload = nil
            return true
        }
        if isFirst { connection.release(id) }
    }

    /// The caller gave up: tells the handler. On the loop.
    func giveUp(_ cause: GivenUp) {
        let observers = state.withLock { state -> [@Sendable () -> Void] in
            guard !state.hasEnded, state.givenUp == nil else { return [] }
            state.givenUp = cause
            defer { state.observers = [] }
            return state.observers
        }
        isGivenUp.store(true, ordering: .releasing)
        for observer in observers { observer() }
    }

    /// What was kept; nil: somebody else has answered. The request's memory goes back here, on the answering thread.
    private func end() -> [any AnyObject & Sendable]? {
        state.withLock { state in
            guard !state.hasEnded else { return nil }
            state.hasEnded = true
            state.message = []
            state.payload = nil
            state.observers = []
            defer { state.kept = [] }
            return state.kept
        }
    }
}

/// An answer on its way to the loop.
struct ReadyAnswer: Sendable {
    var status: UInt32 = 0
    var message: [UInt8]
    var payload: [BufferSlice] = []
    /// Goes when the answer has left.
    var kept: [any AnyObject & Sendable] = []

    var payloadBytes: Int { payload.reduce(0) { $0 + $1.count } }
}
