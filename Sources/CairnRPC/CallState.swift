internal import CairnCore
internal import CairnWire
internal import Synchronization

/// Where one of the peer's calls is: held by its ``IncomingCall``, and by the connection until it is answered. A weak reference to
/// the call would do as well, and make each counting of references to it several times as dear.
final class CallState: Sendable {
    /// Why the caller no longer waits.
    enum GivenUp: Sendable, Equatable {
        case cancelled, expired, disconnected
    }
    private struct State {
        var message: [UInt8]
        var payload: BufferSlice?
        var observers: [@Sendable () -> Void] = []
        var hold: (any CallHold)?
        var givenUp: GivenUp?
        var hasEnded = false
        var hasReleased = false
    }
    /// What is left of a call that has ended.
    struct Remains {
        let hold: (any CallHold)?
    }
    private let state: Mutex<State>
    private let isGivenUp = Atomic<Bool>(false)

    init(_ frame: Frame, hold: (any CallHold)?) {
        state = Mutex(State(message: frame.message, payload: frame.payload?.slice, hold: hold))
    }

    var message: [UInt8] { state.withLock { $0.message } }
    var payload: BufferSlice? { state.withLock { $0.payload } }
    var requestBytes: Int {
        state.withLock { FrameHeader.byteCount + $0.message.count + ($0.payload?.count ?? 0) }
    }
    var isCancelled: Bool { isGivenUp.load(ordering: .acquiring) }
    var givenUp: GivenUp? { state.withLock { $0.givenUp } }

    func onCancel(_ body: @escaping @Sendable () -> Void) {
        let isLate = state.withLock { state in
            guard !state.hasEnded else { return false }
            guard state.givenUp == nil else { return true }
            state.observers.append(body)
            return false
        }
        if isLate { body() }
    }

    var hold: (any CallHold)? { state.withLock { $0.hold } }

    func keep(_ hold: any CallHold) {
        state.withLock { state in
            if !state.hasEnded { state.hold = hold }
        }
    }

    /// Whether the request was there, and its call has not ended.
    func releaseRequest() -> Bool {
        state.withLock { state in
            guard !state.hasEnded, !state.hasReleased else { return false }
            state.hasReleased = true
            state.message = []
            state.payload = nil
            return true
        }
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

    /// Nil: somebody else has answered. The request's memory goes back here, on the answering thread.
    func end() -> Remains? {
        state.withLock { state in
            guard !state.hasEnded else { return nil }
            state.hasEnded = true
            state.message = []
            state.payload = nil
            state.observers = []
            defer { state.hold = nil }
            return Remains(hold: state.hold)
        }
    }
}
