import CairnCore
import CairnLog
import Logging

/// Deciding that something is damaged: what failed once is read again by the newest view, and marked where that names it still.
extension Scrubber {
    private static let attempts = 4
    /// Marks that one transaction makes.
    private static let changesPerCommit = 256

    /// What is found damaged for certain, and is not known to be.
    typealias Finding = (damaged: Damaged, cause: DamageCause)

    func examine(_ suspect: Suspect) throws(StoreError) -> [Finding] {
        switch suspect {
        case .chunk(let key): return try examine(key).map { [$0] } ?? []
        case .missing(let key): return [(.chunk(key, nil), .missing)]
        case .parts(let lineage, let version, let chunk):
            var found: [Finding] = []
            for part in try shard.makeView().parts(lineage, version, chunk) {
                if let finding = try examine(part) { found.append(finding) }
            }
            return found
        }
    }

    func examine(_ key: ChunkKey) throws(StoreError) -> Finding? {
        for _ in 0..<Self.attempts {
            let view = shard.makeView()
            let record = try view.chunk(key)
            // Purged meanwhile, or known.
            guard let record, try view.damage(of: key, record) == nil else { return nil }
            guard let cause = try RecordCheck(log: shard.log).cause(key, record) else { return nil }
            // A location once left is never named again: the same one now means that it was live while it was read.
            guard let newer = try shard.makeView().chunk(key) else { return nil }
            if newer.location == record.location { return (.chunk(key, record.location), cause) }
        }
        return nil
    }

    func examine(_ part: StoredPart) throws(StoreError) -> Finding? {
        guard try shard.makeView().damage(of: part.location) == nil,
            let cause = try RecordCheck(log: shard.log).cause(part)
        else { return nil }
        // Where it was moved or merged since, the transaction finds the entry without it.
        return (.part(part.place, part.location), cause)
    }

    /// Remembers what was found.
    /// - Returns: how much of it is new.
    func mark(_ findings: [Finding]) throws(StoreError) -> Int {
        if findings.isEmpty { return 0 }
        // Before the transaction: from now on every one looks for marks.
        shard.damage.setPossible()
        var new = 0
        for start in stride(from: 0, to: findings.count, by: Self.changesPerCommit) {
            let some = Array(findings[start..<min(start + Self.changesPerCommit, findings.count)])
            let now = execution.milliseconds
            let marked = try change(entries: some.count) { (transaction) throws(StoreError) in
                var marked: [Finding] = []
                for finding in some where try transaction.mark(finding.damaged, finding.cause, at: now) {
                    marked.append(finding)
                }
                return marked
            }
            new += marked.count
            for finding in marked {
                let facts: Logger.Metadata = ["what": "\(finding.damaged.text)", "reason": "\(finding.cause.text)"]
                shard.logger.error("data is damaged", metadata: facts)
            }
        }
        return new
    }

    /// What was marked is whole after all: the disk has found its way back, or its bytes were put right.
    func unmark(_ whole: [Damaged]) throws(StoreError) {
        for start in stride(from: 0, to: whole.count, by: Self.changesPerCommit) {
            let some = Array(whole[start..<min(start + Self.changesPerCommit, whole.count)])
            try change(entries: some.count) { (transaction) throws(StoreError) in
                for damaged in some { try transaction.unmark(damaged) }
            }
            for damaged in some {
                shard.logger.notice("damaged data is whole again", metadata: ["what": "\(damaged.text)"])
            }
        }
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
    /// All parts with a record that a version shows of a chunk.
    func parts(_ lineage: LineageID, _ version: DataVersion, _ chunk: ChunkIndex) throws(StoreError)
        -> [StoredPart]
    {
        var found: [StoredPart] = []
        var (lineage, version) = (lineage, version)
        while try index.get(Key.lineage(lineage)) != nil {
            let entries = try entries(lineage, chunk, upTo: version)
            for entry in entries {
                let place = PatchedPlace(lineage: lineage, version: entry.version, chunk: chunk)
                found += entry.entry.patches.compactMap { StoredPart($0, of: place) }
            }
            guard entries.last?.entry.isFull != true, let parent = try self.lineage(lineage).parent else { break }
            (lineage, version) = (parent.lineage, parent.version)
        }
        return found
    }
}
