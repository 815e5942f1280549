import CairnCore
import CairnLog
import Logging
import Synchronization

/// Entries whose parts should be merged soon. In memory: the first round after a start looks through all there are.
final class MergeList: Sendable {
    private struct State {
        var places: Set<PatchedPlace> = []
        var isComplete = false
    }
    /// Beyond this many all entries with parts are looked through instead.
    private static let limit = 1 << 16
    private let state = Mutex(State())

    func add(_ places: [PatchedPlace]) {
        state.withLock { state in
            state.places.formUnion(places)
            if state.places.count > Self.limit {
                state.places = []
                state.isComplete = false
            }
        }
    }

    /// What was listed, or nil where the list does not hold all; it begins anew.
    func takeAll() -> Set<PatchedPlace>? {
        state.withLock { state in
            defer {
                state.places = []
                state.isComplete = true
            }
            return state.isComplete ? state.places : nil
        }
    }

    /// Not all that was taken has been merged.
    func forget() { state.withLock { $0.isComplete = false } }
}

/// Turns entries with parts into whole chunks: their content stays the same.
extension Background {
    /// Keys looked at with one view.
    private static let mergeStep = 64

    /// Merges the entries that have many parts.
    func mergeListed() throws(StoreError) {
        let listed = merges.takeAll()
        do throws(StoreError) {
            if let listed {
                let inOrder = listed.sorted {
                    ($0.lineage, $0.version, $0.chunk) < ($1.lineage, $1.version, $1.chunk)
                }
                for place in inOrder { try mergeIfWhole(place, shard.makeView()) }
            } else {
                try mergePatches(under: Key(.patched).bytes) { _, count in count >= Transaction.mergePatches }
            }
        } catch {
            merges.forget()
            throw error
        }
    }

    /// Merges all that a snapshot shows of its own lineage.
    func mergePatches(of snapshot: SnapshotRecord) throws(StoreError) {
        try mergePatches(under: Key(.patched).then(snapshot.lineage.rawValue).bytes) { place, _ in
            place.version <= snapshot.version
        }
    }

    private func mergePatches(under prefix: [UInt8], where isWanted: (PatchedPlace, UInt8) -> Bool) throws(StoreError) {
        var start = prefix
        while !isStopped {
            let view = shard.makeView()
            let cursor = view.index.makeCursor()
            cursor.seek(start)
            var places: [PatchedPlace] = []
            var looked = 0
            while looked < Self.mergeStep, try cursor.isValid(), cursor.key.starts(with: prefix),
                var key = KeyReader(cursor.key, .patched), let lineage = key.take(UInt64.self),
                let version = key.take(UInt64.self),
                let chunk = key.take(UInt64.self)
            {
                let place = PatchedPlace(
                    lineage: LineageID(lineage),
                    version: DataVersion(version),
                    chunk: ChunkIndex(chunk)
                )
                if isWanted(place, cursor.value.first ?? 255) { places.append(place) }
                looked += 1
                start = Array(cursor.key) + [0]
                cursor.next()
            }
            if looked == 0 { return }
            for place in places { try mergeIfWhole(place, view) }
        }
    }

    /// Merges one entry. One whose data is damaged stays as it is, and keeps no other from being merged.
    private func mergeIfWhole(_ place: PatchedPlace, _ view: ReadView) throws(StoreError) {
        do throws(StoreError) { try merge(place, view) } catch {
            guard error.code == .damaged else { throw error }
            shard.logger.error(
                "parts of a chunk cannot be merged",
                metadata: ["lineage": "\(place.lineage)", "chunk": "\(place.chunk)", "reason": "\(error)"]
            )
        }
    }

    private func merge(_ place: PatchedPlace, _ view: ReadView) throws(StoreError) {
        guard let entry = try view.entries(place.lineage, place.chunk, upTo: place.version, all: false).first,
            entry.version == place.version, !entry.entry.patches.isEmpty, try view.canMerge(entry.entry, place)
        else { return }
        let lineage = try view.lineage(place.lineage)
        let shown = try view.resolve(place.lineage, place.version, place.chunk)
        guard let owner = shown.mergedOwner(in: lineage.account) else { return }
        let isForeign = owner != lineage.account
        let merging = MergedChunk(shard: shard, place: place, lineage: lineage, view: view, keepsZeros: isForeign)
        guard let data = try merging.load() else {
            // Its bytes moved meanwhile: another time.
            return merges.add([place])
        }
        let expected = entry.entry
        // Not a call that frees space by itself: where the store is full it waits.
        try change(records: 1, bytes: data.chunk?.bytes.count ?? 0, entries: 8, reclaims: false) {
            (transaction) throws(StoreError) in
            try transaction.replaceMerged(place, expected: expected, with: data.chunk, owner: owner)
        }
    }
}
