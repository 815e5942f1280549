import CairnCore
import CairnLog

extension Audit {
    /// Marks of damage go with what they are of: moved, healed, purged or written over, it leaves none behind.
    mutating func damage() throws(StoreError) {
        var problems: [String] = []
        let (view, places) = (view, places)
        try walk(.damagedChunks) { (key, value) throws(StoreError) in
            guard let chunk = key.takeChunk(), let location = try ChunkDamage.decode(value).location else { return }
            if try view.chunk(chunk)?.location != location {
                problems.append("chunk \(chunk.fingerprint) is marked as damaged where it does not lie")
            }
        }
        try walk(.damagedParts) { (key, value) throws(StoreError) in
            guard let segment = key.take(UInt32.self), let offset = key.take(UInt32.self) else { return }
            let place = try PartDamage.decode(value).place
            if !places.contains(UInt64(segment) << 32 | UInt64(offset)) {
                problems.append("a part of \(place) is marked as damaged where none lies")
            }
        }
        for problem in problems { report.note(problem) }
    }
}
