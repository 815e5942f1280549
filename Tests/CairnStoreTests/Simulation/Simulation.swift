import CairnCore
import CairnTesting
import DequeModule
import Dispatch
import Foundation

@testable import CairnStore

/// Decides what happens next: everything that the code under test does on any queue is a step, the seed picks the next one, and no two
/// go on at the same time.
///
/// Whatever may block does so on a strand, a thread that runs only while it has the baton: it gives it back wherever it waits, and
/// within calls of the disk. So a schedule is the same for the same seed, and any interleaving of blocked queues can come up.
// Safety: one thread at a time has the baton, and whoever has it may touch everything; semaphores hand it over.
final class Simulation: @unchecked Sendable {
    var random: SeededRandom
    /// Virtual nanoseconds.
    var clock: UInt64 = 1_000_000_000
    var machine: SimulatedMachine!
    private(set) var steps = 0
    /// FNV-1a of everything that happened.
    private(set) var trace: UInt64 = 0xcbf2_9ce4_8422_2325
    fileprivate var current: Strand?
    fileprivate var suspended: [Strand] = []
    fileprivate let baton = DispatchSemaphore(value: 0)
    private var idle: [Strand] = []

    init(seed: UInt64) { random = SeededRandom(seed: seed) }

    /// Ends the threads; nothing may be suspended any more.
    func end() {
        precondition(suspended.isEmpty)
        for strand in idle { strand.end() }
        idle = []
    }

    func note(_ words: UInt64...) {
        for word in words { trace = (trace ^ word) &* 0x0000_0100_0000_01b3 }
    }

    // MARK: Strands

    /// Begins `body` on a strand, until it waits for the first time.
    func spawn(_ body: @escaping () -> Void) {
        let strand = idle.popLast() ?? Strand(self)
        strand.body = body
        resume(strand)
    }

    private func resume(_ strand: Strand) {
        let outer = current
        current = strand
        strand.go.signal()
        baton.wait()
        current = outer
    }

    fileprivate func rest(_ strand: Strand) { idle.append(strand) }

    /// Gives the baton back until `isReady`. On a strand.
    fileprivate func suspend(until isReady: @escaping () -> Bool) {
        guard let strand = current else { preconditionFailure("only strands wait") }
        strand.isReady = isReady
        suspended.append(strand)
        baton.signal()
        strand.go.wait()
    }

    /// Where something else may happen first, by chance.
    func pause(_ percent: Int = 50) {
        guard current != nil, !machine.isDead, random.chance(percent) else { return }
        suspend { true }
    }

    // MARK: Steps

    /// Does one of the things that can be done now; false where there is none but to wait.
    func step() -> Bool {
        clock += UInt64(random.below(40_000))
        machine.fireTimers()
        let queues = machine.queues.filter(\.canRun)
        let ready = suspended.indices.filter { suspended[$0].isReady() }
        guard !queues.isEmpty || !ready.isEmpty else { return false }
        steps += 1
        let choice = random.below(queues.count + ready.count)
        note(UInt64(choice), UInt64(queues.count + ready.count))
        if choice < queues.count {
            queues[choice].run()
        } else {
            resume(suspended.remove(at: ready[choice - queues.count]))
        }
        return true
    }

    /// Lets time pass until a timer fires.
    func waitForTimer() { if let next = machine.nextTimer { clock = max(clock, next) } }

    /// Everything that waits finds that it waits in vain, until nothing is left of the machine's work.
    fileprivate func unwind() {
        while !suspended.isEmpty {
            guard let place = suspended.firstIndex(where: { $0.isReady() }) else {
                preconditionFailure("something does not let go of a dead machine")
            }
            resume(suspended.remove(at: place))
        }
    }
}

/// A thread that runs while it has the baton.
// Safety: as its simulation's.
final class Strand: @unchecked Sendable {
    fileprivate let go = DispatchSemaphore(value: 0)
    fileprivate var body: (() -> Void)?
    fileprivate var isReady: () -> Bool = { true }

    fileprivate init(_ simulation: Simulation) {
        // Both live until the simulation ends its threads.
        let thread = Thread { [self, simulation] in
            while true {
                go.wait()
                guard runBody() else { return }
                simulation.rest(self)
                simulation.baton.signal()
            }
        }
        thread.stackSize = 1 << 20
        thread.start()
    }

    fileprivate func end() { go.signal() }

    /// Nothing of the body is kept when it is done.
    private func runBody() -> Bool {
        guard let body else { return false }
        self.body = nil
        body()
        isReady = { true }
        return true
    }
}

/// What a shard runs on, from the machine's start to its end.
// Safety: as its simulation's.
final class SimulatedMachine: ShardExecution, @unchecked Sendable {
    unowned let simulation: Simulation
    fileprivate(set) var isDead = false
    fileprivate var queues: [SimulatedQueue] = []
    private var timers: [SimulatedTimer] = []

    init(_ simulation: Simulation) { self.simulation = simulation }

    /// Stops in the midst of whatever it is at.
    func die() {
        isDead = true
        for queue in queues { queue.clear() }
        timers = []
        simulation.unwind()
        queues = []
    }

    var isIdle: Bool { simulation.suspended.isEmpty && !queues.contains(where: \.canRun) }

    // MARK: ShardExecution

    func makeQueue(_ label: String, isBackground: Bool) -> any SerialQueue {
        let queue = SimulatedQueue(self, blocks: isBackground || label.hasSuffix(".io"))
        queues.append(queue)
        return queue
    }

    func makeSignal() -> any ShardSignal { SimulatedSignal(self) }

    func makeTimer(on queue: any SerialQueue, every interval: Duration, _ body: @escaping @Sendable () -> Void)
        -> any ShardTimer
    {
        let timer = SimulatedTimer(self, queue, UInt64(interval / .nanoseconds(1)), isRepeating: true, body)
        timers.append(timer)
        return timer
    }

    var uptime: UInt64 { simulation.clock }
    /// Nothing waits: what else may happen, happens at the calls of the disk and of RocksDB.
    func rest(_ nanoseconds: UInt64) throws(StoreError) { if isDead { throw Self.dead } }
    var milliseconds: UInt64 { 1_700_000_000_000 + simulation.clock / 1_000_000 }

    func makeID(_ shard: ShardIndex) -> UUID128 {
        let high = simulation.random.next() & ~0xf000 | 0x8000
        let low =
            simulation.random.next() & 0x3fff_ffff_ffff_0000 | 0x8000_0000_0000_0000 | UInt64(shard.rawValue)
        return UUID128(high: high, low: low)
    }

    func pick(_ count: Int) -> Int { simulation.random.below(count) }

    // MARK: Timers

    /// Once.
    fileprivate func fire(on queue: any SerialQueue, after nanoseconds: UInt64, _ body: @escaping @Sendable () -> Void)
    {
        let timer = SimulatedTimer(self, queue, nanoseconds, isRepeating: false, body)
        timers.append(timer)
        timer.activate()
    }

    fileprivate func fireTimers() {
        for timer in timers { timer.fireIfDue() }
        timers.removeAll { $0.isOver }
    }
    fileprivate var nextTimer: UInt64? { timers.compactMap(\.next).min() }
}

// Safety: as its simulation's.
private final class SimulatedTimer: ShardTimer, @unchecked Sendable {
    private unowned let machine: SimulatedMachine
    private let queue: any SerialQueue
    private let interval: UInt64
    private let isRepeating: Bool
    /// Has fired, and will not again.
    private(set) var isOver = false
    private let body: @Sendable () -> Void
    private(set) var next: UInt64?

    init(
        _ machine: SimulatedMachine,
        _ queue: any SerialQueue,
        _ interval: UInt64,
        isRepeating: Bool,
        _ body: @escaping @Sendable () -> Void
    ) {
        (self.machine, self.queue, self.interval, self.body) = (machine, queue, interval, body)
        self.isRepeating = isRepeating
    }

    func activate() { next = machine.uptime + interval }
    func cancel() { next = nil }

    func fireIfDue() {
        guard let due = next, due <= machine.uptime else { return }
        next = isRepeating ? machine.uptime + interval : nil
        isOver = !isRepeating
        queue.async(body)
    }
}

// Safety: as its simulation's.
private final class SimulatedSignal: ShardSignal, @unchecked Sendable {
    private let machine: SimulatedMachine
    private var isGiven = false
    init(_ machine: SimulatedMachine) { self.machine = machine }
    func give() { isGiven = true }

    func wait() throws(StoreError) {
        if !isGiven, !machine.isDead {
            machine.simulation.suspend { [unowned self] in isGiven || machine.isDead }
        }
        guard isGiven else { throw SimulatedMachine.dead }
    }
}

extension SimulatedMachine {
    static let dead = StoreError(.closed, "the machine has stopped")
}

// Safety: as its simulation's.
private final class SimulatedQueue: SerialQueue, @unchecked Sendable {
    private unowned let machine: SimulatedMachine
    /// Whether its steps may wait: the others run without a strand.
    private let blocks: Bool
    private var items = Deque<() -> Void>()
    private var isBusy = false
    private var runner: Strand?

    init(_ machine: SimulatedMachine, blocks: Bool) { (self.machine, self.blocks) = (machine, blocks) }

    var canRun: Bool { !isBusy && !items.isEmpty }
    func clear() { items = [] }

    func run() {
        guard let item = items.popFirst() else { return }
        isBusy = true
        if blocks {
            machine.simulation.spawn { [self] in
                runner = machine.simulation.current
                item()
                runner = nil
                isBusy = false
            }
        } else {
            item()
            isBusy = false
        }
    }

    func async(_ body: @escaping @Sendable () -> Void) { if !machine.isDead { items.append(body) } }
    func async(after nanoseconds: UInt64, _ body: @escaping @Sendable () -> Void) {
        if !machine.isDead { machine.fire(on: self, after: nanoseconds, body) }
    }

    func sync<Value>(_ body: () throws(StoreError) -> Value) throws(StoreError) -> Value {
        if machine.isDead { throw SimulatedMachine.dead }
        var result: Result<Value, StoreError>?
        var isBegun = false
        withoutActuallyEscaping(body) { body in
            items.append {
                isBegun = true
                result = Result { () throws(StoreError) in try body() }
            }
            machine.simulation.suspend { [unowned self] in result != nil || machine.isDead && !isBegun }
        }
        guard let result else { throw SimulatedMachine.dead }
        return try result.get()
    }

    func checkIsCurrent() { precondition(isBusy && machine.simulation.current === runner) }
}
