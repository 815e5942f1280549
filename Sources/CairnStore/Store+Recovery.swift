import CairnCore
import Dispatch
import Logging
import Synchronization

/// Changes of several shards that a call of this process is still at: their intents are left alone.
final class IntentsUnderWay: Sendable {
    private let ids = Mutex<Set<UUID128>>([])
    func contains(_ id: UUID128) -> Bool { ids.withLock { $0.contains(id) } }
    fileprivate func insert(_ id: UUID128) { ids.withLock { _ = $0.insert(id) } }
    fileprivate func remove(_ id: UUID128) { ids.withLock { _ = $0.remove(id) } }
}

extension Store {
    /// Before the intent is written: the call will end or undo it itself.
    public func begin(intent: UUID128) { recovery.intents.insert(intent) }

    /// After the call's last change, whatever came of it.
    /// - Parameter isLeft: whether the intent may still be there, for a shard took no changes: it is undone as soon as that can be.
    public func end(intent: UUID128, isLeft: Bool) {
        recovery.intents.remove(intent)
        if isLeft { recovery.settleIntents() }
    }

    /// Has `body` called after each recovery of a shard, with the new one. It must not block. Held until another one is given, or the store
    /// is let go of.
    public func whenRecovered(_ body: @escaping @Sendable (Shard) -> Void) {
        recovery.whenRecovered.withLock { $0 = body }
    }
}

/// What follows when a shard was opened anew while the others went on. Apart from the ``Store``, for the same reason as ``ShardPlace``.
final class StoreRecovery: Sendable {
    fileprivate let intents = IntentsUnderWay()
    fileprivate let whenRecovered = Mutex<@Sendable (Shard) -> Void>({ _ in })
    private let places: [ShardPlace]
    private var shards: [Shard] { places.map(\.shard) }

    init(_ places: [ShardPlace]) { self.places = places }

    func recovered(_ shard: Shard) {
        whenRecovered.withLock { $0 }(shard)
        settleIntents()
    }

    /// Undoes what calls left that could not end (SPEC R6). What cannot be undone now is when the shard in its way is recovered.
    fileprivate func settleIntents() {
        DispatchQueue.global(qos: .utility).async { [self] in
            for home in shards {
                do throws(StoreError) { try settleIntents(of: home) } catch {
                    guard error.code != .fenced, error.code != .closed else { continue }
                    home.logger.error("an unfinished change cannot be undone", metadata: ["reason": "\(error)"])
                }
            }
        }
    }

    private func settleIntents(of home: Shard) throws(StoreError) {
        let seen = try home.makeView().intents().map(\.id).filter { !intents.contains($0) }
        // Looked at again: one that is there now, and was no call's before, will never be ended by its call.
        for (id, record) in try home.makeView().intents() where seen.contains(id) {
            try Store.undo(id, record, of: home, among: shards)
        }
    }
}
