internal import Collections

/// Something to do at a time that may move: cheap to set again and again to a later one. Confined to its loop.
public final class LoopTimer {
    fileprivate var action: (() -> Void)?
    /// Uptime in nanoseconds.
    fileprivate var deadline: UInt64?
    /// When the earliest entry in the loop's heap comes up, if there is one.
    fileprivate var queued: UInt64?
    private unowned let loop: EventLoop

    /// `action` runs on the loop; it must not keep the timer's owner alive.
    public init(loop: EventLoop, action: @escaping () -> Void) {
        self.loop = loop
        self.action = action
    }

    /// Runs the action at `deadline` (uptime in nanoseconds, at some milliseconds' precision) instead of any other time.
    public func set(_ deadline: UInt64) {
        self.deadline = deadline
        if let queued, queued <= deadline { return }
        queued = deadline
        loop.timers.insert(self, at: deadline)
    }

    /// Runs the action at `deadline` unless it is due earlier anyway.
    public func setNoLater(_ deadline: UInt64) {
        if let current = self.deadline, current <= deadline { return }
        set(deadline)
    }

    public func cancel() { deadline = nil }

    /// Runs the action if it is still due at `now`: what ran just before may have moved or cancelled the timer, or ended its owner,
    /// which the action does not keep.
    func fire(_ now: UInt64) {
        guard let deadline, deadline <= now else { return }
        self.deadline = nil
        action?()
    }

    /// For the owner's end: the action is let go.
    public func invalidate() {
        // Of an owner that ended before, the last reference may go on any thread, while the loop looks at the timer.
        guard action != nil else { return }
        deadline = nil
        action = nil
    }
}

/// All timers of a loop, the next one first.
struct TimerQueue {
    private struct Entry: Comparable {
        let deadline: UInt64
        let timer: LoopTimer
        static func < (a: Entry, b: Entry) -> Bool { a.deadline < b.deadline }
        static func == (a: Entry, b: Entry) -> Bool { a.deadline == b.deadline }
    }
    private var heap = Heap<Entry>()

    /// When to look again; maybe for a timer that has moved on.
    var next: UInt64? { heap.min?.deadline }

    mutating func insert(_ timer: LoopTimer, at deadline: UInt64) {
        heap.insert(Entry(deadline: deadline, timer: timer))
    }

    /// The timers that are due at `now`, to be fired one by one; entries whose timer moved on are put where they belong.
    mutating func due(_ now: UInt64) -> [LoopTimer] {
        var due: [LoopTimer] = []
        while let first = heap.min, first.deadline <= now {
            _ = heap.popMin()
            let timer = first.timer
            // An entry that was overtaken by an earlier one is of no use any more.
            guard timer.queued == first.deadline else { continue }
            timer.queued = nil
            guard let deadline = timer.deadline else { continue }
            if deadline <= now {
                due.append(timer)
            } else {
                timer.queued = deadline
                heap.insert(Entry(deadline: deadline, timer: timer))
            }
        }
        return due
    }
}
