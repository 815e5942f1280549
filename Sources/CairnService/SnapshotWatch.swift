import CairnCore
import CairnStore
import Dispatch
import Logging

/// Looks after snapshots in progress as time goes by: asks their clients how far they are (SPEC S10), and cancels those for which
/// nobody does anything any more (SPEC S11).
// Safety: the timer's handler alone uses `idleAt`, on the watch's own queue; the rest is constant.
final class SnapshotWatch: @unchecked Sendable {
    /// After a start clients get so long to come back before anything is cancelled: while the server was away nobody could do
    /// anything. Milliseconds; the idle limit where that is shorter.
    private static let grace: UInt64 = 15 * 60 * 1000
    private unowned let service: Service
    private let queue = DispatchQueue(label: "cairn.service.watch", qos: .utility)
    private let timer: any DispatchSourceTimer
    /// When to look for idle ones next; milliseconds since 1970.
    private var idleAt: UInt64

    init(_ service: Service) {
        self.service = service
        let options = service.options
        idleAt = service.now + min(Self.grace, options.snapshotIdleMilliseconds)
        timer = DispatchSource.makeTimerSource(queue: queue)
        let prompting = options.promptMilliseconds == 0 ? UInt64.max : options.promptMilliseconds
        let interval = max(10, min(1000, prompting / 8, options.snapshotIdleMilliseconds / 8))
        timer.schedule(
            deadline: .now() + .milliseconds(Int(interval)),
            repeating: .milliseconds(Int(interval)),
            leeway: .milliseconds(Int(interval / 8))
        )
        timer.setEventHandler { [weak self] in self?.look() }
        timer.activate()
    }

    /// Waits for the look that is under way.
    func stop() {
        timer.cancel()
        queue.sync {}
    }

    private func look() {
        dispatchPrecondition(condition: .onQueue(queue))
        service.prompts.ask(service)
        let now = service.now
        guard now >= idleAt else { return }
        idleAt = now + service.idleRule.grain
        service.cancelIdleSnapshots(at: now)
    }
}

extension Service {
    /// Snapshots looked at with one view.
    private static let idleStep = 256

    /// Cancels the snapshots for which nobody has done anything for too long, as seen at `now` (SPEC S11).
    func cancelIdleSnapshots(at now: UInt64) { for shard in store.shards { cancelIdle(on: shard, at: now) } }

    /// Only the earliest outstanding one of a volume: nobody can do anything for the later ones. Their time begins when they
    /// become the earliest.
    private func cancelIdle(on shard: Shard, at now: UInt64) {
        var last: VolumeID?
        while true {
            let found: [SnapshotRecord]
            do throws(StoreError) {
                found = try shard.makeView().earliestOutstanding(after: last, limit: Self.idleStep)
            } catch {
                return logger.error("snapshots in progress cannot be looked at", metadata: ["reason": "\(error)"])
            }
            for snapshot in found where snapshot.state == .pending && idleRule.isIdle(snapshot, at: now) {
                cancel(snapshot, on: shard, at: now)
            }
            guard found.count == Self.idleStep else { return }
            last = found.last?.volume
        }
    }

    private func cancel(_ idle: SnapshotRecord, on shard: Shard, at now: UInt64) {
        let (rule, logger) = (idleRule, logger)
        shard.submit(entries: Limits.snapshotsInProgress, reclaims: true) { (transaction) throws(StoreError) -> Bool in
            guard let snapshot = try transaction.snapshot(idle.id), snapshot.state == .pending,
                rule.isIdle(snapshot, at: now)
            else { return false }
            try transaction.cancel(snapshot, keepsRecord: true, at: now)
            if let next = try transaction.earliestOutstanding(of: snapshot.volume) {
                try transaction.touch(next, at: now)
            }
            return true
        } completion: { result in
            switch result {
            case .success(true):
                logger.notice("cancelled a snapshot that was idle", metadata: ["snapshot": "\(idle.id)"])
            case .success(false): break
            case .failure(let error):
                logger.error(
                    "an idle snapshot was not cancelled",
                    metadata: ["snapshot": "\(idle.id)", "reason": "\(error)"]
                )
            }
        }
    }
}
