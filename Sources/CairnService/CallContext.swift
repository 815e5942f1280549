import CairnCore
import Dispatch

/// A call that is under way, as whoever took it in knows it. From any thread.
public protocol OngoingCall: AnyObject, Sendable {
    /// Whether the caller has given the call up; cheap.
    var isCancelled: Bool { get }
    /// Counts so many bytes more for the call, which holds them until its answer. Before the answer.
    /// - Throws: THROTTLED where they are more than it may have (SPEC R3).
    func makeRoom(_ bytes: Int) throws(ServiceError)
}

/// Who makes a call, and until when the answer matters.
public struct CallContext: Sendable {
    /// The account that the caller's certificate names (SPEC C1).
    public let account: AccountID
    /// Whether the caller is one of the operator's compute hosts, which acts for the account (SPEC C1, D5).
    public let isHost: Bool
    /// Nanoseconds of `DispatchTime.now().uptimeNanoseconds`; nil: the caller waits for ever.
    public private(set) var deadline: UInt64?
    /// Nil for what nobody cancels and counts.
    private let call: (any OngoingCall)?
    /// The way back to the caller, where there is one (SPEC S10).
    public let promptLine: (any PromptLine)?
    /// Whether a call that takes microseconds, and never waits, may be carried out on the thread that it came on.
    public let mayAnswerHere: Bool
    /// Whether so may a call that takes some tens of microseconds.
    public let mayReadHere: Bool
    /// The longest payload of an answer that the caller takes.
    public let payloadLimit: Int

    public init(
        account: AccountID,
        isHost: Bool = false,
        deadline: UInt64? = nil,
        promptLine: (any PromptLine)? = nil,
        mayAnswerHere: Bool = false,
        mayReadHere: Bool = false,
        payloadLimit: Int = Limits.payloadBytes,
        call: (any OngoingCall)? = nil
    ) {
        self.account = account
        self.isHost = isHost
        self.deadline = deadline
        self.call = call
        self.promptLine = promptLine
        self.mayAnswerHere = mayAnswerHere
        self.mayReadHere = mayReadHere
        self.payloadLimit = payloadLimit
    }

    /// See ``OngoingCall/isCancelled``.
    public var isCancelled: Bool { call?.isCancelled ?? false }

    /// See ``OngoingCall/makeRoom(_:)``.
    public func makeRoom(_ bytes: Int) throws(ServiceError) { try call?.makeRoom(bytes) }

    /// Puts the deadline so many milliseconds from now, unless it is earlier.
    mutating func end(within milliseconds: UInt64) {
        let end = DispatchTime.now().uptimeNanoseconds + milliseconds * 1_000_000
        deadline = min(deadline ?? end, end)
    }

    /// Throws where nobody waits for the answer any more: asked before work that costs (hashing, the disk).
    func checkWanted() throws(ServiceError) {
        if isCancelled { throw ServiceError(.cancelled, "the caller cancelled the call") }
        if let deadline, DispatchTime.now().uptimeNanoseconds >= deadline {
            throw ServiceError(.deadlineExceeded, "the call's deadline passed before the work began")
        }
    }
}

/// How a call ends: its answer, given exactly once, on any thread.
public typealias Answer<Value> = @Sendable (Result<Value, ServiceError>) -> Void
