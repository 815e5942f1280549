import CairnCore
import CairnLog
import Logging

/// Deciding that something is damaged: what failed once is read again by the newest view, and marked where that names it still.
extension Scrubber {
    private static let attempts = 4

    /// - Returns: how much was newly marked as damaged.
    func examine(_ suspect: Suspect) throws(StoreError) -> Int {
        switch suspect {
        case .chunk(let key): return try examine(key) ? 1 : 0
        case .missing(let key): return try mark(.chunk(key, nil), .missing) ? 1 : 0
        case .parts(let lineage, let version, let chunk):
            var found = 0
            for (place, part) in try shard.makeView().parts(lineage, version, chunk) {
                if try examine(place, part) { found += 1 }
            }
            return found
        }
    }

    /// - Returns: whether it was newly marked.
    func examine(_ key: ChunkKey) throws(StoreError) -> Bool {
        for _ in 0..<Self.attempts {
            let view = shard.makeView()
            let record = try view.chunk(key)
            // Purged meanwhile, or known.
            guard let record, try view.damage(of: key, record) == nil else { return false }
            guard let cause = try RecordCheck(log: shard.log).cause(key, record) else { return false }
            // A location once left is never named again: the same one now means that it was live while it was read.
            guard let newer = try shard.makeView().chunk(key) else { return false }
            if newer.location == record.location { return try mark(.chunk(key, record.location), cause) }
        }
        return false
    }

    /// - Returns: whether it was newly marked.
    func examine(_ place: PatchedPlace, _ part: Patch) throws(StoreError) -> Bool {
        guard try shard.makeView().damage(of: part.location) == nil,
            let cause = try RecordCheck(log: shard.log).cause(place, part)
        else { return false }
        // Where it was moved or merged since, the transaction finds the entry without it.
        return try mark(.part(place, part.location), cause)
    }

    private func mark(_ damaged: Damaged, _ cause: DamageCause) throws(StoreError) -> Bool {
        // Before the transaction: from now on every one looks for marks.
        shard.damage.setPossible()
        let now = UnixTime.milliseconds
        let isNew = try change(entries: 2) { (transaction) throws(StoreError) in
            try transaction.mark(damaged, cause, at: now)
        }
        if isNew {
            shard.logger.error("data is damaged", metadata: ["what": "\(damaged.text)", "reason": "\(cause.text)"])
        }
        return isNew
    }

    /// What was marked is whole after all: the disk has found its way back, or its bytes were put right.
    func unmark(_ damaged: Damaged) throws(StoreError) {
        try change(entries: 2) { (transaction) throws(StoreError) in try transaction.unmark(damaged) }
        shard.logger.notice("damaged data is whole again", metadata: ["what": "\(damaged.text)"])
    }
}

extension Damaged {
    /// For the log: fingerprints are not named, only places.
    fileprivate var text: String {
        switch self {
        case .chunk(_, let location?): "a chunk in \(location)"
        case .chunk(_, nil): "a chunk that the dictionary lacks"
        case .part(_, let location): "a part of a chunk in \(location)"
        }
    }
}

extension ManifestReader {
    /// All parts that a version shows of a chunk, and the entries that they are of.
    func parts(_ lineage: LineageID, _ version: DataVersion, _ chunk: ChunkIndex) throws(StoreError)
        -> [(PatchedPlace, Patch)]
    {
        var found: [(PatchedPlace, Patch)] = []
        var (lineage, version) = (lineage, version)
        while try index.get(Key.lineage(lineage)) != nil {
            let entries = try entries(lineage, chunk, upTo: version)
            for entry in entries {
                let place = PatchedPlace(lineage: lineage, version: entry.version, chunk: chunk)
                for part in entry.entry.patches { found.append((place, part)) }
            }
            guard entries.last?.entry.isFull != true, let parent = try self.lineage(lineage).parent else { break }
            (lineage, version) = (parent.lineage, parent.version)
        }
        return found
    }
}
