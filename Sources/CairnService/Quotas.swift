import CairnCore
import CairnStore
import Synchronization

/// Keeps accounts within what they may have (SPEC R3), exactly, though their changes are made on several shards at once.
///
/// A change is judged within its transaction, by what the account has on this shard with the change and on the others without.
/// What another shard's change has been let through with, and is not yet to be seen there, is remembered until it is: so of two
/// that fit only one by one the second is refused.
final class Quotas: Sendable {
    private let accounts = Mutex<[AccountID: AccountQuota]>([:])

    /// The account's; kept from its first change under a limit on.
    func quota(of account: AccountID) -> AccountQuota {
        accounts.withLock { accounts in
            if let known = accounts[account] { return known }
            let quota = AccountQuota(account)
            accounts[account] = quota
            return quota
        }
    }
}

/// What one account's changes under way come to.
final class AccountQuota: Sendable {
    private struct UnderWay {
        /// What the account has on the shard when the last of the changes is made.
        var usage: AccountUsage
        var changes: Int
    }
    let account: AccountID
    private let underWay = Mutex<[ShardIndex: UnderWay]>([:])

    init(_ account: AccountID) { self.account = account }

    /// Lets a change through, or throws QUOTA_EXCEEDED; THROTTLED where the account has deleted something that is not free yet. On the
    /// shard's queue; reads one small record of each other shard.
    /// - Parameter isFirst: whether this is the first time for this change: a transaction may be run again.
    func admit(
        _ limits: AccountLimits,
        on shard: ShardIndex,
        before: AccountUsage,
        after: AccountUsage,
        isFirst: Bool,
        all shards: [Shard]
    ) throws(ServiceError) {
        let result = underWay.withLock { underWay in
            Result { () throws(ServiceError) in
                func excess() throws(ServiceError) -> AccountLimits.Excess? {
                    var others = AccountUsage()
                    for other in shards where other.index != shard {
                        if let usage = underWay[other.index]?.usage {
                            others += usage
                        } else {
                            others += try storeCall { () throws(StoreError) in
                                try other.makeView().usage(of: self.account)
                            }
                        }
                    }
                    return limits.excess(before, after, others)
                }
                if let first = try excess() {
                    if first.mayPass { try throttle(first, all: shards) }
                    // What was being freed on another shard may be free since it was counted.
                    if let excess = try excess() { throw ServiceError(.quotaExceeded, excess.text) }
                }
                underWay[shard] = UnderWay(
                    usage: after,
                    changes: (underWay[shard]?.changes ?? 0) + (isFirst ? 1 : 0)
                )
            }
        }
        try result.get()
    }

    /// When to look again whether what was deleted is free: of a little it takes less, of much more.
    private static let freeingTime = Duration.seconds(1)

    /// Throws THROTTLED where the change may fit soon.
    private func throttle(_ excess: AccountLimits.Excess, all shards: [Shard]) throws(ServiceError) {
        for shard in shards {
            guard try storeCall({ () throws(StoreError) in try shard.isFreeing(account) }) else { continue }
            let text = excess.text + "; what was deleted is being freed"
            throw ServiceError(.throttled, text, retryAfter: Self.freeingTime)
        }
    }

    /// The change is visible, or will never be.
    func settle(on shard: ShardIndex) {
        underWay.withLock { underWay in
            guard var state = underWay[shard] else { return }
            state.changes -= 1
            underWay[shard] = state.changes == 0 ? nil : state
        }
    }
}

/// A change's part of its account's quota; nothing where there is no limit.
// Safety: `isAdmitted` is used by the transaction, and then by its completion.
final class QuotaHold: @unchecked Sendable {
    private let quota: AccountQuota
    private let limits: AccountLimits
    private let shard: Shard
    private let shards: [Shard]
    private var isAdmitted = false

    init(_ quota: AccountQuota, _ limits: AccountLimits, on shard: Shard, all shards: [Shard]) {
        self.quota = quota
        self.limits = limits
        self.shard = shard
        self.shards = shards
    }

    /// Runs a change, and judges what it came to: what is thrown undoes it.
    func judge<Value>(
        _ transaction: Transaction,
        _ body: (Transaction) throws(ServiceError) -> Value
    ) throws(ServiceError) -> Value {
        let before = try storeCall { () throws(StoreError) in try transaction.usage(of: quota.account) }
        let value = try body(transaction)
        let after = try storeCall { () throws(StoreError) in try transaction.usage(of: quota.account) }
        guard after.exceeds(before) else { return value }
        try quota.admit(
            limits,
            on: shard.index,
            before: before,
            after: after,
            isFirst: !isAdmitted,
            all: shards
        )
        isAdmitted = true
        return value
    }

    func settle() {
        if isAdmitted { quota.settle(on: shard.index) }
    }
}

extension AccountUsage {
    /// Whether there is more of anything.
    fileprivate func exceeds(_ before: AccountUsage) -> Bool {
        volumes > before.volumes || snapshots > before.snapshots || logicalBytes > before.logicalBytes
            || storedBytes > before.storedBytes
    }
}

extension AccountLimits {
    fileprivate struct Excess {
        let text: String
        /// Whether the background may make it fit: all but stored bytes goes with what is deleted, at once.
        let mayPass: Bool
    }

    /// Only what a change adds to can be too much: who is above a limit that was lowered may still delete.
    fileprivate func excess(_ before: AccountUsage, _ after: AccountUsage, _ others: AccountUsage) -> Excess? {
        for (name, limit, field) in Self.fields {
            let (limit, old, new) = (self[keyPath: limit], before[keyPath: field], after[keyPath: field])
            guard limit != 0, new > old, others[keyPath: field].saturatingSum(new) > limit else { continue }
            let had = others[keyPath: field].saturatingSum(old)
            return Excess(
                text: "\(name): the account may have \(limit), has \(had), and wants \(new - old) more",
                mayPass: field == \.storedBytes && new - old <= limit
            )
        }
        return nil
    }

    private static var fields: [(String, KeyPath<AccountLimits, UInt64>, KeyPath<AccountUsage, UInt64>)] {
        [
            ("volumes", \.volumes, \.volumes), ("snapshots", \.snapshots, \.snapshots),
            ("logical bytes", \.logicalBytes, \.logicalBytes), ("stored bytes", \.storedBytes, \.storedBytes),
        ]
    }
}
