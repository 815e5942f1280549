public import CairnCore
import CairnCrypto
import CairnLog
import Synchronization

/// Whether a shard knows of damage: so that one without pays nothing for looking.
final class DamageState: Sendable {
    private let possible = Atomic<Bool>(false)
    private let known = Atomic<Int>(0)

    /// Whether there may be marks of damage. Never false again before the next start.
    var isPossible: Bool { possible.load(ordering: .acquiring) }
    func setPossible() { possible.store(true, ordering: .releasing) }

    /// Damaged chunks and parts, as they were counted last.
    var count: Int { known.load(ordering: .relaxed) }
    func set(count: Int) { known.store(count, ordering: .relaxed) }
}

/// A damaged chunk of a volume or snapshot.
public struct DamagedBlock: Sendable, Hashable {
    public let chunk: ChunkIndex
    /// Nil where a part of it is damaged, or the reader may not know it (SPEC D5).
    public let fingerprint: Fingerprint?
    /// When it was found, in milliseconds since 1970.
    public let since: UInt64
    public let cause: DamageCause
}

/// How much of an account's data is damaged, on one shard.
public struct DamageCount: Sendable, Hashable {
    public internal(set) var chunks = 0
    public internal(set) var parts = 0

    public init() {}

    public static func += (sum: inout DamageCount, more: DamageCount) {
        sum.chunks += more.chunks
        sum.parts += more.parts
    }
}

extension Shard {
    /// Damaged chunks and parts, as they were counted last. Any thread; waits for nothing.
    public var damagedCount: Int { damage.count }

    /// Whether anything may be known to be damaged here. Any thread; waits for nothing.
    public var mayHaveDamage: Bool { damage.isPossible }

    /// Bytes of records that the index names.
    func liveBytes() throws(StoreError) -> UInt64 {
        let cursor = makeView().index.makeCursor()
        cursor.seek(Key(.segments).bytes)
        var bytes: UInt64 = 0
        while try cursor.isValid(), cursor.key.first == Table.segments.rawValue {
            bytes += try SegmentRecord.decode(cursor.value).liveBytes
            cursor.next()
        }
        return bytes
    }
}

extension ReadView {
    /// How much is damaged, by account; of one whose name is not to be found the account is nil.
    public func damageCounts() throws(StoreError) -> [AccountID?: DamageCount] {
        guard mayHaveDamage else { return [:] }
        var byNumber: [AccountNumber: DamageCount] = [:]
        let cursor = index.makeCursor()
        cursor.seek(Key(.damagedChunks).bytes)
        while try cursor.isValid(), var key = KeyReader(cursor.key, .damagedChunks), let chunk = key.takeChunk() {
            byNumber[chunk.account, default: DamageCount()].chunks += 1
            cursor.next()
        }
        cursor.seek(Key(.damagedParts).bytes)
        while try cursor.isValid(), cursor.key.first == Table.damagedParts.rawValue {
            let place = try PartDamage.decode(cursor.value).place
            byNumber[try lineage(place.lineage).account, default: DamageCount()].parts += 1
            cursor.next()
        }
        if byNumber.isEmpty { return [:] }
        var names: [AccountNumber: AccountID] = [:]
        cursor.seek(Key(.accounts).bytes)
        while try cursor.isValid(), var key = KeyReader(cursor.key, .accounts) {
            if let name = AccountID(String(decoding: key.takeRest(), as: UTF8.self)), cursor.value.count == 4 {
                names[AccountNumber(rawValue: UInt32(littleEndian: cursor.value.loadUnaligned(as: UInt32.self)))] = name
            }
            cursor.next()
        }
        var counts: [AccountID?: DamageCount] = [:]
        for (number, count) in byNumber {
            counts[names[number], default: DamageCount()].chunks += count.chunks
            counts[names[number], default: DamageCount()].parts += count.parts
        }
        return counts
    }

    /// The chunks of a volume or snapshot that are known to be damaged, in order.
    /// - Parameters:
    ///   - range: chunks to look at.
    ///   - limit: the most to give.
    ///   - looking: the most entries of manifests to look at.
    ///   - rule: of whose data the fingerprint may be told; nil: of all.
    /// - Returns: them, how many entries were looked at, and where to go on; nil at the range's end.
    public func damage(
        of source: ReadSource,
        in range: Range<ChunkIndex>,
        limit: Int,
        looking: Int,
        rule: ExportRule?
    ) throws(StoreError) -> (found: [DamagedBlock], looked: Int, next: ChunkIndex?) {
        guard mayHaveDamage else { return ([], 0, nil) }
        var found: [DamagedBlock] = []
        var position = range.lowerBound
        var looked = 0
        while let chunk = try nextEntry(source.lineage, from: position), chunk < range.upperBound {
            guard found.count < limit, looked < looking else { return (found, looked, chunk) }
            looked += 1
            if let damaged = try damage(of: source, chunk, rule) { found.append(damaged) }
            position = ChunkIndex(chunk.rawValue + 1)
        }
        return (found, looked, nil)
    }

    private func damage(of source: ReadSource, _ chunk: ChunkIndex, _ rule: ExportRule?) throws(StoreError)
        -> DamagedBlock?
    {
        let resolved = try resolve(source.lineage, source.version, chunk)
        if case .data(let key, _) = resolved.base, let damage = try damage(of: key, try self.chunk(key)) {
            var isOpen = true
            do throws(StoreError) { try rule?.check(resolved) } catch {
                guard error.code == .forbidden else { throw error }
                isOpen = false
            }
            return DamagedBlock(
                chunk: chunk,
                fingerprint: isOpen && resolved.patches.isEmpty ? key.fingerprint : nil,
                since: damage.since,
                cause: damage.cause
            )
        }
        for part in resolved.patches {
            guard let damage = try damage(of: part.location) else { continue }
            return DamagedBlock(chunk: chunk, fingerprint: nil, since: damage.since, cause: damage.cause)
        }
        return nil
    }
}
