internal import Collections

/// What a feeder found.
enum Feed {
    /// The next piece, and the first thing to do with it.
    case piece(@Sendable () -> Void)
    /// Nothing yet: ``PieceRunner/wake()`` will tell.
    case notYet
    /// There are no more.
    case end
}

/// Runs a transfer: worker threads that take on pieces, a bounded number at a time, and carry each through its steps.
///
/// A worker prefers a step of a piece that is under way (that frees memory) to taking on a new piece. One worker at a time
/// asks the feeder, so that pieces are made in order, without a lock around reading. Between steps a piece waits for
/// answers from the server, which no thread waits for.
///
///     feeder ──► first step ──► call … answer ──► add(step) ──► call … answer ──► pieceDone()
///
/// The first failure ends it all: calls under way are cancelled, steps not begun are dropped.
final class PieceRunner: Sendable {
    fileprivate struct State {
        var steps: Deque<@Sendable () -> Void> = []
        var pieces = 0
        var isFeeding = false
        var isHungry = true
        /// Counts the wake-ups, so that none is lost between a feeder's look and its answer.
        var wakes = 0
        var isAtEnd = false
        var outcome: Result<Void, ClientError>?
        var threads = 0
        var calls: [UInt64: any Cancellable] = [:]
        var nextCall: UInt64 = 0
        var completion: (@Sendable (Result<Void, ClientError>) -> Void)?
    }
    fileprivate enum Work {
        case step(@Sendable () -> Void)
        case feed(wakes: Int)
        case leave
    }

    private let monitor = Monitor(State())
    private let pieceLimit: Int
    private let feed: @Sendable () throws(ClientError) -> Feed

    /// - Parameters:
    ///   - pieces: the most that are under way at a time.
    ///   - feed: asked by one worker at a time; may block on its source, briefly.
    init(pieces: Int, feed: @escaping @Sendable () throws(ClientError) -> Feed) {
        pieceLimit = max(1, pieces)
        self.feed = feed
    }

    /// Starts the workers; `completion` is called once, when the last of them has left.
    func start(workers: Int, completion: @escaping @Sendable (Result<Void, ClientError>) -> Void) {
        let count = max(1, workers)
        monitor.change { state in
            state.threads = count
            state.completion = completion
            return ((), .nobody)
        }
        for _ in 0..<count {
            guard Threads.start(named: "cairn-transfer", { self.work() }) else {
                fail(ClientError(.configuration, "the system gives no more threads"))
                leave()
                continue
            }
        }
    }

    /// A further step of a piece that is under way. Dropped once the run has ended.
    func add(_ step: @escaping @Sendable () -> Void) {
        monitor.change { state in
            guard state.outcome == nil else { return ((), .nobody) }
            state.steps.append(step)
            return ((), .one)
        }
    }

    /// A piece has passed its last step.
    func pieceDone() {
        monitor.change { state in
            state.pieces -= 1
            state.settle()
            return ((), state.outcome == nil ? .one : .all)
        }
    }

    /// The feeder may have something now.
    func wake() {
        monitor.change { state in
            state.wakes += 1
            state.isHungry = true
            return ((), .one)
        }
    }

    /// Ends the run; only the first failure counts.
    func fail(_ error: ClientError) {
        let calls = monitor.change { state -> ([any Cancellable], Wake) in
            guard state.outcome == nil else { return ([], .nobody) }
            state.outcome = .failure(error)
            state.steps = []
            let calls = Array(state.calls.values)
            state.calls = [:]
            return (calls, .all)
        }
        for call in calls { call.cancel() }
    }

    /// Whether the run has ended, well or not: long steps look here.
    var isEnded: Bool { monitor.change { ($0.outcome != nil, .nobody) } }

    private func work() {
        while true {
            switch monitor.wait(until: { $0.nextWork(pieceLimit: pieceLimit) }) {
            case .step(let step): step()
            case .feed(let wakes): takeOn(wakes: wakes)
            case .leave: return leave()
            }
        }
    }

    private func takeOn(wakes: Int) {
        do throws(ClientError) {
            let feed = try feed()
            let first = monitor.change { state -> ((@Sendable () -> Void)?, Wake) in
                state.isFeeding = false
                switch feed {
                case .piece(let step):
                    return (state.outcome == nil ? step : nil, .one)
                case .notYet:
                    state.pieces -= 1
                    state.isHungry = state.wakes != wakes
                    return (nil, .one)
                case .end:
                    state.pieces -= 1
                    state.isAtEnd = true
                    state.settle()
                    return (nil, .all)
                }
            }
            first?()
        } catch {
            fail(error)
        }
    }

    private func leave() {
        let last = monitor.change { state -> ((@Sendable () -> Void)?, Wake) in
            state.threads -= 1
            guard state.threads == 0, let completion = state.completion, let outcome = state.outcome else {
                return (nil, .nobody)
            }
            state.completion = nil
            return ({ completion(outcome) }, .nobody)
        }
        last?()
    }
}

extension PieceRunner {
    /// Makes a call that the run's end cancels. `completion` is called on the connection's loop: it must not block, and
    /// hands what takes time to ``add(_:)``. It is not called once the run has ended.
    func call(
        _ begin: (_ completion: @escaping @Sendable () -> Bool) -> any Cancellable
    ) {
        let id = monitor.change { state -> (UInt64, Wake) in
            state.nextCall += 1
            return (state.nextCall, .nobody)
        }
        let call = begin { self.ended(id) }
        let late = monitor.change { state -> (Bool, Wake) in
            guard state.outcome == nil else { return (true, .nobody) }
            // Its answer may have come already, and left its mark.
            if state.calls.removeValue(forKey: id) == nil { state.calls[id] = call }
            return (false, .nobody)
        }
        if late { call.cancel() }
    }

    /// Whether the answer still counts.
    private func ended(_ id: UInt64) -> Bool {
        monitor.change { state in
            if state.calls.removeValue(forKey: id) == nil { state.calls[id] = EndedCall.shared }
            return (state.outcome == nil, .nobody)
        }
    }
}

/// The mark of a call whose answer came before its beginning was noted.
private final class EndedCall: Cancellable {
    static let shared = EndedCall()
    func cancel() {}
}

extension PieceRunner.State {
    fileprivate mutating func nextWork(pieceLimit: Int) -> PieceRunner.Work? {
        if outcome != nil { return .leave }
        if let step = steps.popFirst() { return .step(step) }
        guard !isFeeding, isHungry, !isAtEnd, pieces < pieceLimit else { return nil }
        isFeeding = true
        pieces += 1
        return .feed(wakes: wakes)
    }

    /// All went well where no piece is left and none will come.
    fileprivate mutating func settle() {
        if outcome == nil, isAtEnd, pieces == 0 { outcome = .success(()) }
    }
}
