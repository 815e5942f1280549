public import CairnCore
import CairnStore
import CairnWire
import Dispatch
import Logging
import Synchronization

/// The way back to a client that made a call: its connection (SPEC S10).
public protocol PromptLine: AnyObject, Sendable {
    /// Asks the client how far a snapshot is. `answer` is called once, on any thread, at the latest after `limit`.
    func ask(_ snapshot: SnapshotID, limit: Duration, answer: @escaping @Sendable (PromptOutcome) -> Void)
}

/// What came of a question.
public enum PromptOutcome: Sendable, Hashable {
    /// The client's answer, as it came.
    case percent(UInt32)
    /// No answer within the limit, or one that cannot be understood.
    case unanswered
    /// The client takes no such questions: its connection is not asked again.
    case unsupported
    /// The connection has ended.
    case gone
}

/// What came of the server's questions since it started (SPEC S10).
public struct PromptCounts: Sendable, Hashable {
    public internal(set) var asked = 0
    public internal(set) var answered = 0
    /// No answer within the limit, or one that could not be understood.
    public internal(set) var unanswered = 0
    public internal(set) var unsupported = 0
}

/// Asks clients how far their snapshots are, and records what they say (SPEC S10). What they do not say harms nothing.
///
/// Which connection last uploaded to a snapshot is kept in memory: after a restart the next upload tells it.
final class Prompts: Sendable {
    private struct State {
        var schedule: PromptSchedule<any PromptLine>
        var counts = PromptCounts()
    }

    /// How long a client has to answer.
    static let answerLimit = Duration.seconds(10)

    private let state: Mutex<State>
    private let isOn: Bool

    /// - Parameter interval: nanoseconds; 0: nobody is ever asked.
    init(intervalNanoseconds interval: UInt64) {
        isOn = interval > 0
        state = Mutex(State(schedule: PromptSchedule(interval: interval)))
    }

    var counts: PromptCounts { state.withLock { $0.counts } }
    private static var now: UInt64 { DispatchTime.now().uptimeNanoseconds }

    func uploaded(to snapshot: SnapshotRecord, _ report: ProgressReport, _ context: CallContext) {
        guard isOn, let line = context.promptLine else { return }
        state.withLock { state in
            if report.completes {
                state.schedule.forget(snapshot.id)
            } else {
                state.schedule.uploaded(
                    to: snapshot.id,
                    account: context.account,
                    by: line,
                    reporting: report.percent != nil,
                    at: Self.now
                )
            }
        }
    }

    func reported(_ snapshot: SnapshotID, complete: Bool) {
        guard isOn else { return }
        state.withLock { state in
            if complete { state.schedule.forget(snapshot) } else { state.schedule.reported(snapshot, at: Self.now) }
        }
    }

    /// Asks whom it is time to ask. Called on a worker.
    func ask(_ service: Service) {
        guard isOn else { return }
        for question in state.withLock({ $0.schedule.due(at: Self.now) }) {
            guard service.takesData(question.snapshot) else {
                state.withLock { $0.schedule.forget(question.snapshot) }
                continue
            }
            state.withLock { $0.counts.asked += 1 }
            question.line.ask(question.snapshot, limit: Self.answerLimit) { [self] outcome in
                take(outcome, question, service)
            }
        }
    }

    private func take(_ given: PromptOutcome, _ question: PromptSchedule<any PromptLine>.Question, _ service: Service) {
        var outcome = given
        if case .percent(101...) = given { outcome = .unanswered }
        state.withLock { state in
            switch outcome {
            case .percent:
                state.counts.answered += 1
                state.schedule.answered(question.snapshot, at: Self.now)
            case .unanswered:
                state.counts.unanswered += 1
                state.schedule.answered(question.snapshot, at: Self.now)
            case .unsupported:
                state.counts.unsupported += 1
                state.schedule.forget(question.snapshot)
            case .gone: state.schedule.forget(question.snapshot)
            }
        }
        switch outcome {
        case .percent(let percent): service.record(percent, promptFor: question.snapshot, question.account)
        case .unanswered:
            service.logger.info("no answer to a prompt", metadata: ["snapshot": "\(question.snapshot)"])
            service.record(nil, promptFor: question.snapshot, question.account)
        case .unsupported, .gone: break
        }
    }
}

extension Service {
    public var promptCounts: PromptCounts { prompts.counts }

    /// Whether the snapshot is the one of its volume that takes data.
    fileprivate func takesData(_ id: SnapshotID) -> Bool {
        guard let shard = shard(of: id.uuid) else { return false }
        let view = shard.makeView()
        guard let snapshot = try? view.snapshot(id), snapshot.state == .pending else { return false }
        return (try? view.earliestOutstanding(of: snapshot.volume))?.id == id
    }

    /// An answer says how far the client is, and no more: whatever it says, the client itself completes its snapshot.
    /// - Parameter percent: nil: there was no answer.
    fileprivate func record(_ percent: UInt32?, promptFor id: SnapshotID, _ account: AccountID) {
        guard let shard = shard(of: id.uuid) else { return }
        shard.submit { (transaction) throws(StoreError) in
            guard let snapshot = try transaction.snapshot(id), snapshot.account == account, snapshot.state == .pending
            else { return }
            if let percent {
                try transaction.setPromptedProgress(UInt8(min(percent, 99)), of: snapshot, at: self.now)
            } else if !snapshot.isPromptUnanswered {
                try transaction.setPromptUnanswered(snapshot)
            }
        } completion: { result in
            if case .failure(let error) = result {
                self.logger.error(
                    "what came of a prompt was not recorded",
                    metadata: ["snapshot": "\(id)", "reason": "\(error)"]
                )
            }
        }
    }
}
