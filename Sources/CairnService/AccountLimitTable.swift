import CairnCore
import CairnStore
import Synchronization

/// Which limits hold for whom (SPEC R3): the accounts' own, each on its home shard and here in memory, else the server's.
final class AccountLimitTable: Sendable {
    /// Accounts with limits of their own: they are all in memory.
    static let maximumCount = 1 << 18

    private let usual: AccountLimits
    private let own = Mutex<[AccountID: AccountLimits]>([:])

    init(usual: AccountLimits) { self.usual = usual }

    /// Without I/O.
    func limits(of account: AccountID) -> AccountLimits { own.withLock { $0[account] } ?? usual }

    /// Once, before calls come in.
    func load(from shards: [Shard]) throws(StoreError) {
        for shard in shards {
            let found = try shard.makeView().ownLimits()
            own.withLock { $0.merge(found) { $1 } }
        }
    }

    /// After a change that was answered. Reads within the lock: of two that come at once neither brings back the older state.
    func refresh(_ account: AccountID, from home: Shard) throws(StoreError) {
        let result = own.withLock { own in
            Result { () throws(StoreError) in own[account] = try home.makeView().limits(of: account) }
        }
        try result.get()
    }

    /// After the recovery of a shard: a change that was not answered may have been made, or not. Within the lock, as ``refresh(_:from:)``.
    /// - Parameter isHome: whether an account's home is this shard.
    func reload(from shard: Shard, isHome: (AccountID) -> Bool) throws(StoreError) {
        let result = own.withLock { own in
            Result { () throws(StoreError) in
                let found = try shard.makeView().ownLimits()
                own = own.filter { !isHome($0.key) }.merging(found) { $1 }
            }
        }
        try result.get()
    }

    /// Whether one more account may have limits of its own.
    func hasRoom(for account: AccountID) -> Bool {
        own.withLock { $0[account] != nil || $0.count < Self.maximumCount }
    }
}

extension AccountLimits {
    /// Whether what the account has is limited, and not only how it asks.
    var isQuota: Bool { volumes != 0 || snapshots != 0 || logicalBytes != 0 || storedBytes != 0 }
}
