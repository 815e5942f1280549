public import CairnCore
import CairnLog

/// What a change of several shards is about to make (SPEC R6): written down before, and removed when all of it is there, so that a
/// crash in between leaves nothing of it.
struct IntentRecord: StoredRecord, Hashable {
    let snapshots: [SnapshotID]

    init(snapshots: [SnapshotID]) { self.snapshots = snapshots }

    func write(to writer: inout ByteWriter) {
        writer.put(UInt32(snapshots.count))
        for snapshot in snapshots { writer.put(snapshot.uuid) }
    }

    init?(_ reader: inout ByteReader) {
        guard let count = reader.take(UInt32.self), Int(count) * 16 <= reader.remaining else { return nil }
        var snapshots: [SnapshotID] = []
        for _ in 0..<count {
            guard let id = reader.takeID() else { return nil }
            snapshots.append(SnapshotID(id))
        }
        self.init(snapshots: snapshots)
    }
}

extension Key {
    static func intent(_ id: UUID128) -> [UInt8] { Key(.intents).then(id).bytes }
}

extension Transaction {
    /// These snapshots are about to be made, on several shards; undone when the store is opened, unless ``endIntent(_:)`` comes first.
    public func putIntent(_ id: UUID128, snapshots: [SnapshotID]) {
        overlay.put(Key.intent(id), IntentRecord(snapshots: snapshots).encoded)
    }

    /// All of it is there, or nothing any more.
    public func endIntent(_ id: UUID128) { overlay.delete(Key.intent(id)) }
}

extension ManifestReader {
    func intents() throws(StoreError) -> [(id: UUID128, record: IntentRecord)] {
        let cursor = seeker
        cursor.seek(Key(.intents).bytes)
        var found: [(UUID128, IntentRecord)] = []
        while try cursor.isValid(), var key = KeyReader(cursor.key, .intents), let id = key.takeID() {
            found.append((id, try IntentRecord.decode(cursor.value)))
            cursor.next()
        }
        return found
    }
}

extension Store {
    /// Removes what a crash interrupted, on whichever shard it is. Before the store takes calls.
    static func undoIntents(_ shards: [Shard]) throws(StoreError) {
        for home in shards {
            for (id, record) in try home.makeView().intents() { try undo(id, record, of: home, among: shards) }
        }
    }

    /// Removes what one change made of which the intent is still there.
    /// - Parameter home: holds the intent.
    static func undo(_ id: UUID128, _ record: IntentRecord, of home: Shard, among shards: [Shard]) throws(StoreError) {
        for snapshot in record.snapshots {
            guard let shard = shards.first(where: { $0.index == snapshot.uuid.shard }) else {
                throw StoreError(.damaged, "\(snapshot) is of a shard that is not there")
            }
            guard try shard.makeView().snapshot(snapshot) != nil else { continue }
            try shard.perform(entries: 8, reclaims: true) { (transaction) throws(StoreError) in
                guard let made = try transaction.snapshot(snapshot) else { return }
                try transaction.deleteSnapshot(made)
            }
        }
        // Last: killed before, it is all done again.
        try home.perform(entries: 1, reclaims: true) { (transaction) throws(StoreError) in transaction.endIntent(id) }
    }
}
