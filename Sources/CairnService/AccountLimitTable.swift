import CairnCore
import CairnStore
import Synchronization

/// Which limits hold for whom (SPEC R3): the accounts' own, each on its home shard and here in memory, else the server's.
final class AccountLimitTable: Sendable {
    /// Accounts with limits of their own: they are all in memory.
    static let maximumCount = 1 << 18

    private let usual: AccountLimits
    /// Asked by every call's admission, on the network's threads: nothing is read from the disk within.
    private let own = Mutex<[AccountID: AccountLimits]>([:])
    /// Of two changes that are read at once neither brings back the older state.
    private let reading = Mutex(())

    init(usual: AccountLimits) { self.usual = usual }

    /// Without I/O.
    func limits(of account: AccountID) -> AccountLimits { own.withLock { $0.isEmpty ? nil : $0[account] } ?? usual }

    /// Once, before calls come in.
    func load(from shards: [Shard]) throws(StoreError) {
        for shard in shards {
            let found = try shard.makeView().ownLimits()
            own.withLock { $0.merge(found) { $1 } }
        }
    }

    /// After a change that was answered.
    func refresh(_ account: AccountID, from home: Shard) throws(StoreError) {
        let result = reading.withLock { _ in
            Result { () throws(StoreError) in
                let limits = try home.makeView().limits(of: account)
                own.withLock { $0[account] = limits }
            }
        }
        try result.get()
    }

    /// After the recovery of a shard: a change that was not answered may have been made, or not.
    /// - Parameter isHome: whether an account's home is this shard.
    func reload(from shard: Shard, isHome: (AccountID) -> Bool) throws(StoreError) {
        let result = reading.withLock { _ in
            Result { () throws(StoreError) in
                let found = try shard.makeView().ownLimits()
                own.withLock { own in own = own.filter { !isHome($0.key) }.merging(found) { $1 } }
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
