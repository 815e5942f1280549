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
    static let limit = 1 << 16
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
    /// Nanoseconds until merges that quotas did not allow are tried again.
    private static let mergeRest: UInt64 = 5_000_000_000
    /// Bytes of chunks merged in one step, or in one round: other work comes in between.
    private static let mergeBytes = 16 << 20

    /// Merges some of the entries that have many parts: lineages take turns.
    func mergeListed() throws(StoreError) {
        isMergeLeft = false
        if !refusedMerges.isEmpty, execution.uptime >= refusedMergesUntil {
            merges.add(Array(refusedMerges))
            refusedMerges = []
        }
        let listed: Set<PatchedPlace>
        if let known = merges.takeAll() { listed = known } else { listed = try findMany() }
        var left = Self.inTurns(listed)[...]
        do throws(StoreError) {
            var room = Self.mergeBytes
            while room > 0, let place = left.popFirst() {
                room -= try mergeIfWhole(place, shard.makeView())
            }
        } catch {
            merges.forget()
            throw error
        }
        merges.add(Array(left))
        isMergeLeft = !left.isEmpty
    }

    /// The first of each lineage, then the second of each, and so on.
    private static func inTurns(_ places: Set<PatchedPlace>) -> [PatchedPlace] {
        let inOrder = places.sorted { ($0.lineage, $0.version, $0.chunk) < ($1.lineage, $1.version, $1.chunk) }
        var counts: [LineageID: Int] = [:]
        let numbered = inOrder.map { place in
            counts[place.lineage, default: 0] += 1
            return (turn: counts[place.lineage]!, place: place)
        }
        return numbered.sorted { ($0.turn, $0.place.lineage) < ($1.turn, $1.place.lineage) }.map(\.place)
    }

    /// Looks through all entries with parts for those that have many. Beyond the list's limit they are found another time.
    private func findMany() throws(StoreError) -> Set<PatchedPlace> {
        let prefix = Key(.patched).bytes
        var found: Set<PatchedPlace> = []
        var start: [UInt8]? = prefix
        do throws(StoreError) {
            while let from = start, !isStopped {
                var places: [PatchedPlace]
                (places, start) = try patchedPlaces(under: prefix, from: from, shard.makeView(), limit: Self.mergeStep)
                {
                    $1 >= Transaction.mergePatches
                }
                found.formUnion(places)
                if found.count >= MergeList.limit { break }
            }
        } catch {
            merges.forget()
            throw error
        }
        if start != nil { merges.forget() }
        return found
    }

    /// Merges some of what a snapshot shows of its own lineage.
    /// - Parameter start: where to go on; nil: at the beginning.
    /// - Returns: where to go on; nil at the end.
    func mergePatches(of snapshot: SnapshotRecord, from start: [UInt8]?) throws(StoreError) -> [UInt8]? {
        let prefix = Key(.patched).then(snapshot.lineage.rawValue).bytes
        let view = shard.makeView()
        let limit = max(1, min(Self.mergeStep, Self.mergeBytes / snapshot.chunkSize.bytes))
        let (places, next) = try patchedPlaces(under: prefix, from: start ?? prefix, view, limit: limit) { place, _ in
            place.version <= snapshot.version
        }
        for place in places { _ = try mergeIfWhole(place, view) }
        return next
    }

    /// - Returns: those of the next `limit` places that are wanted, and where to go on; nil at the end.
    private func patchedPlaces(
        under prefix: [UInt8],
        from start: [UInt8],
        _ view: ReadView,
        limit: Int,
        where isWanted: (PatchedPlace, UInt8) -> Bool
    ) throws(StoreError) -> (places: [PatchedPlace], next: [UInt8]?) {
        let cursor = view.index.makeCursor(within: prefix)
        cursor.seek(start)
        var places: [PatchedPlace] = []
        var (looked, next) = (0, start)
        while looked < limit, try cursor.isValid(), cursor.key.starts(with: prefix),
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
            next = Array(cursor.key) + [0]
            cursor.next()
        }
        return (places, looked < limit ? nil : next)
    }

    /// Merges one entry. One whose data is damaged stays as it is, and keeps no other from being merged.
    /// - Returns: the bytes that were read for it, about.
    private func mergeIfWhole(_ place: PatchedPlace, _ view: ReadView) throws(StoreError) -> Int {
        do throws(StoreError) { return try merge(place, view) } catch {
            guard error.code == .damaged else { throw error }
            shard.logger.error(
                "parts of a chunk cannot be merged",
                metadata: ["lineage": "\(place.lineage)", "chunk": "\(place.chunk)", "reason": "\(error)"]
            )
            return 0
        }
    }

    private func refuseMerge(_ place: PatchedPlace) {
        if refusedMerges.isEmpty { refusedMergesUntil = execution.uptime + Self.mergeRest }
        // Beyond that all entries with parts are looked through instead.
        if refusedMerges.count < MergeList.limit { refusedMerges.insert(place) } else { merges.forget() }
    }

    private func merge(_ place: PatchedPlace, _ view: ReadView) throws(StoreError) -> Int {
        guard let entry = try view.entries(place.lineage, place.chunk, upTo: place.version, all: false).first,
            entry.version == place.version, !entry.entry.patches.isEmpty, try view.canMerge(entry.entry, place)
        else { return 0 }
        let lineage = try view.lineage(place.lineage)
        let shown = try view.resolve(place.lineage, place.version, place.chunk)
        guard let owner = shown.mergedOwner(in: lineage.account) else { return 0 }
        let isForeign = owner != lineage.account
        let merging = MergedChunk(shard: shard, place: place, lineage: lineage, view: view, keepsZeros: isForeign)
        guard let data = try merging.load() else {
            // Its bytes moved meanwhile: another time.
            merges.add([place])
            return lineage.chunkSize.bytes
        }
        let expected = entry.entry
        let growth = (data.chunk?.bytes.count ?? 0) - expected.patches.reduce(0) { $0 + Int($1.storedBytes) }
        // An account that has all it may have keeps its parts: they are read and sealed as well. Where they are many they are looked at again,
        // for it may be let have more, or delete something, and takes no more parts until then.
        guard growth <= 0 || shard.options.growth.allows(lineage.owner, UInt64(growth)) else {
            if expected.patches.count >= Int(Transaction.mergePatches) { refuseMerge(place) }
            return lineage.chunkSize.bytes
        }
        // Not a call that frees space by itself: where the store is full it waits.
        try change(records: 1, bytes: data.chunk?.bytes.count ?? 0, entries: 8, reclaims: false) {
            (transaction) throws(StoreError) in
            try transaction.replaceMerged(place, expected: expected, with: data.chunk, owner: owner)
        }
        return lineage.chunkSize.bytes
    }
}
