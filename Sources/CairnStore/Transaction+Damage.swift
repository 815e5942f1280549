import CairnCore
import CairnCrypto
import CairnLog

/// What cannot be read (any more).
enum Damaged: Hashable, Sendable {
    /// - Parameter location: where the dictionary says that it is; nil where it does not know it.
    case chunk(ChunkKey, RecordLocation?)
    case part(PatchedPlace, RecordLocation)
}

/// Damage is remembered in the commit, told, and forgotten with what was damaged.
extension Transaction {
    /// Remembers damage, where the index still names what is damaged.
    /// - Returns: whether that was not known before.
    func mark(_ damaged: Damaged, _ cause: DamageCause, at now: UInt64) throws(StoreError) -> Bool {
        switch damaged {
        case .chunk(let key, let location):
            let record = try chunk(key)
            guard record?.location == location, try damage(of: key, record) == nil else { return false }
            overlay.put(Key.damaged(key), ChunkDamage(since: now, cause: cause, location: location).encoded)
        case .part(let place, let location):
            guard try damage(of: location) == nil,
                try entry(place.lineage, place.chunk, place.version)?.patches.contains(where: {
                    $0.location == location
                }) == true
            else { return false }
            overlay.put(Key.damaged(location), PartDamage(since: now, cause: cause, place: place).encoded)
        }
        return true
    }

    /// Forgets damage of what was read, and is whole.
    func unmark(_ damaged: Damaged) throws(StoreError) {
        switch damaged {
        case .chunk(let key, _): try forgetDamage(of: key)
        case .part(_, let location): try forgetDamage(ofPart: location)
        }
    }

    /// Of a chunk that is gone, or lies elsewhere now.
    func forgetDamage(of chunk: ChunkKey) throws(StoreError) {
        guard mayHaveDamage, try overlay.get(Key.damaged(chunk)) != nil else { return }
        overlay.delete(Key.damaged(chunk))
    }

    func forgetDamage(ofPart location: RecordLocation) throws(StoreError) {
        guard mayHaveDamage, try overlay.get(Key.damaged(location)) != nil else { return }
        overlay.delete(Key.damaged(location))
    }

    /// Data that a client sent again takes the place of a damaged record: whatever names the chunk reads the new bytes.
    /// - Returns: what the dictionary says of the chunk now.
    func heal(_ chunk: ChunkKey, _ record: ChunkRecord, with data: ChunkData) throws(StoreError) -> ChunkRecord {
        guard try damage(of: chunk, record) != nil else { return record }
        // Entries lead to the bad record still.
        hints.noteHealed(chunk)
        overlay.put(Key.healed(chunk), [])
        let healed = try store(data, as: chunk, record.chunkSize, references: record.references)
        dropLive(record.location)
        if record.references > 0 {
            countUsage(of: chunk.account) {
                $0.count(record, -1)
                $0.count(healed, 1)
            }
        }
        return healed
    }

    /// The same for data that a manifest or a lease names already, so that nothing else of the call changes anything.
    func healIfDamaged(_ chunk: ChunkKey, with data: ChunkData) throws(StoreError) {
        guard mayHaveDamage, let record = try self.chunk(chunk) else { return }
        _ = try heal(chunk, record, with: data)
    }
}
