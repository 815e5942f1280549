public import CairnCore

/// A call to make.
public struct Request: Sendable {
    /// The method's fixed number.
    public var method: UInt32
    /// The encoded message.
    public var message: [UInt8]
    /// Raw bytes behind the message; not copied before TLS takes them, so nobody may write to them until the call ends.
    public var payload: [BufferSlice]
    /// How long the call may take, waiting for credit included; nil: without limit. Rounded up to milliseconds.
    public var timeout: Duration?
    /// When the caller stops waiting, in nanoseconds of `DispatchTime`'s uptime clock; nil: as ``timeout`` says, else the earlier of both.
    public var deadline: UInt64?

    public init(method: UInt32, message: [UInt8], payload: [BufferSlice] = [], timeout: Duration? = nil) {
        self.method = method
        self.message = message
        self.payload = payload
        self.timeout = timeout
    }
}

/// A call's successful answer.
public struct Answer: Sendable {
    public let message: [UInt8]
    public let payload: BufferSlice?

    public init(message: [UInt8], payload: BufferSlice?) {
        self.message = message
        self.payload = payload
    }
}

/// Names a call that was made, to cancel it.
public struct CallToken: Hashable, Sendable {
    let rawValue: UInt64
}

/// Takes the calls that a connection's peer makes.
public protocol CallHandler: AnyObject, Sendable {
    /// Called on the connection's loop when a call is announced whose body costs credit (large ones, and those with a payload), before
    /// memory is taken for it: must not block. Welcomes everybody unless implemented.
    /// - Parameter bytes: of the whole request.
    func expect(method: UInt32, bytes: Int) -> Reception
    /// Called on the connection's loop for each call: must not block. ``IncomingCall/reply(message:payload:)`` or
    /// ``IncomingCall/fail(status:detail:)`` ends the call, now or later, on any thread.
    func handle(_ call: IncomingCall)
}

extension CallHandler {
    public func expect(method: UInt32, bytes: Int) -> Reception { .welcome(nil) }
}

/// What becomes of a call whose header has come.
public enum Reception: Sendable {
    /// It is handled when it is whole, and holds this.
    case welcome((any CallHold)?)
    /// Its body is dropped as it comes in; then it is answered with this error, and not handled.
    /// - Parameters:
    ///   - status: one of gRPC's codes, not 0.
    ///   - detail: an encoded `cairn.v1.ErrorDetail`.
    case refusal(status: UInt32, detail: [UInt8])
}

/// What a call counts for with its handler, until its answer has left or can no longer: its `deinit` says so.
public protocol CallHold: AnyObject, Sendable {
    /// The answer's frame has so many bytes: called once at most, on the connection's loop, before they are sent.
    func answers(bytes: Int)
}

/// How one of the peer's calls ended.
public struct CallOutcome: Sendable {
    /// As the peer gave it: any number.
    public let method: UInt32
    /// 0, or one of gRPC's codes.
    public let status: UInt32
    /// Whole frames; no answer where the connection was gone.
    public let requestBytes: Int
    public let answerBytes: Int
    /// From the whole request's arrival to the answer's handing over to TLS.
    public let nanoseconds: UInt64
}

/// Told of every call that the peers of a server's connections make. On the connections' loops: must not block.
public protocol CallObserver: AnyObject, Sendable {
    func began(method: UInt32)
    func ended(_ outcome: CallOutcome)
}
