public import CairnCore
import Synchronization

/// That an account did not have some chunk of its own on a shard at some moment: who writes it then need not look for it once more, unless
/// one like it has come since.
public struct Absence: Sendable {
    let arrivals: Arrivals
    let account: AccountID
    /// Groups that were applied by then, at the least.
    let moment: UInt64
}

/// Which chunks came to a shard when, roughly: enough to say of most that they did not come since a moment.
///
/// Whoever prepares an upload looks for each chunk, on any thread. Its transaction would have to look again, for another call may have
/// brought the chunk meanwhile. Instead it asks here: of so many chunks as come while a call is under way, hardly one shares a slot.
final class Arrivals: Sendable {
    /// Groups that show in the index.
    private let applied = Atomic<UInt64>(0)
    /// By a part of the fingerprint: the last group, of those that were begun, that brought such a chunk. Touched on the shard's queue only.
    private let slots = Mutex([UInt64](repeating: 0, count: Arrivals.slotCount))
    private static let slotCount = 32 << 10

    /// To be asked before the view is made in which a chunk is then not found.
    var moment: UInt64 { applied.load(ordering: .acquiring) }

    /// The group that was being written shows in every view from now on.
    func noteApplied() { applied.wrappingAdd(1, ordering: .releasing) }

    /// A chunk that the dictionary did not have comes with the group that is being built.
    func note(_ fingerprint: Fingerprint) {
        let group = moment + 1
        slots.withLock { $0[Self.slot(of: fingerprint)] = group }
    }

    func mayHaveCome(_ fingerprint: Fingerprint, since moment: UInt64) -> Bool {
        slots.withLock { $0[Self.slot(of: fingerprint)] > moment }
    }

    private static func slot(of fingerprint: Fingerprint) -> Int {
        Int(truncatingIfNeeded: fingerprint.words.0) & (slotCount - 1)
    }
}

/// Looks for chunks of an account on a shard, as they are at one moment: a hint for who prepares a change. One thread at a time.
public struct ChunkFinder {
    public enum Answer: Sendable {
        case held
        case absent(Absence)
        /// It must be sent again, or that could not be told.
        case unsound

        public var absence: Absence? { if case .absent(let absence) = self { absence } else { nil } }
    }

    private let view: ReadView
    private let arrivals: Arrivals
    private let account: AccountID
    private let moment: UInt64

    public init(_ shard: Shard, of account: AccountID) {
        arrivals = shard.arrivals
        moment = arrivals.moment
        view = shard.makeView()
        self.account = account
    }

    public func find(_ fingerprint: Fingerprint) -> Answer {
        do throws(StoreError) {
            if let number = try view.accountNumber(account) {
                let key = ChunkKey(own: number, fingerprint)
                if let record = try view.chunk(key) {
                    return try view.damage(of: key, record) == nil ? .held : .unsound
                }
            }
            return .absent(Absence(arrivals: arrivals, account: account, moment: moment))
        } catch { return .unsound }
    }
}
