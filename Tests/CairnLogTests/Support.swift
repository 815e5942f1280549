import CairnCore
import CairnTesting
import Foundation
import Testing

@testable import CairnLog

let identity = LogIdentity(
    store: UUID128(bytes: (0..<16).map { UInt8($0 * 16 + 1) })!,
    shard: ShardIndex(3)
)
let segmentSize = 1 << 20

/// A folder that goes when the test ends.
final class TemporaryFolder {
    let path: String
    init() throws {
        path = NSTemporaryDirectory() + "cairn-log-" + UUID().uuidString
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    }
    deinit { try? FileManager.default.removeItem(atPath: path) }
}

/// The bytes of a slice that may be the last to hold its buffer.
func copy(_ slice: BufferSlice) -> [UInt8] { withExtendedLifetime(slice) { Array(slice.bytes) } }

func pattern(_ count: Int, _ seed: UInt64) -> BufferSlice {
    var random = SeededRandom(seed: seed)
    let buffer = BufferPool.shared.buffer(capacity: max(count, 1))
    let words = buffer.memory.bindMemory(to: UInt64.self)
    // SeededRandom at the start of each 64 bytes: enough to notice any that are out of place.
    for word in 0..<(count + 7) / 8 { words[word] = word % 8 == 0 ? random.next() : UInt64(word) }
    buffer.count = count
    return buffer.slice
}

func chunkHeader(_ bytes: BufferSlice, _ number: UInt64 = 0) -> ChunkHeader {
    ChunkHeader(
        account: 7,
        owner: 7,
        fingerprint: Fingerprint(bytes: [UInt8](repeating: UInt8(truncatingIfNeeded: number), count: 32))!,
        codec: .raw,
        rawLength: UInt32(bytes.count),
        rawChecksum: CRC32C.extend(0, bytes.bytes)
    )
}

func patchHeader(_ bytes: BufferSlice, _ number: UInt64 = 0) -> PatchHeader {
    PatchHeader(
        lineage: number,
        chunk: ChunkIndex(number + 1),
        version: DataVersion(number + 2),
        start: 512,
        rawChecksum: CRC32C.extend(0, bytes.bytes)
    )
}

/// What an index would keep: the commits in order, and where the log stands after each.
struct ModelIndex {
    var commits: [[UInt8]] = []
    var position: LogPosition?
    var live: Set<SegmentID> = []

    mutating func apply(_ group: RecoveredGroup) {
        #expect(group.position.lsn == LSN(UInt64(commits.count) + 1))
        commits.append(copy(group.commit))
        position = group.position
    }
}

/// Recovers, with a durable index that stands where `index` does; it is then what replay made of it.
func recover(
    _ storage: any SegmentStorage,
    _ index: inout ModelIndex,
    options: LogOptions = LogOptions()
) throws(LogError) -> SegmentLog {
    let recovery = try LogRecovery(storage, identity: identity, options: options, from: index.position)
    while let group = try recovery.next() { index.apply(group) }
    return try recovery.begin(durable: index.position, live: index.live)
}

/// A new log with nothing in it.
func newLog(_ storage: any SegmentStorage, options: LogOptions = LogOptions()) throws -> SegmentLog {
    try LogRecovery.format(storage, identity: identity, segmentSize: segmentSize)
    var index = ModelIndex()
    return try recover(storage, &index, options: options)
}

/// Writes a group with one chunk of `bytes` bytes, and gives the chunk's location.
@discardableResult
func write(
    _ log: SegmentLog,
    bytes count: Int,
    commit: [UInt8],
    sync: Bool = true,
    purpose: GroupPurpose = .normal
) throws(LogError) -> (location: RecordLocation, position: LogPosition) {
    let bytes = pattern(count, UInt64(commit.count))
    let group = try log.makeGroup(for: purpose, records: 1, bytes: count, commit: commit.count)
    let location = group.appendChunk(chunkHeader(bytes), bytes)
    try group.finish(commit: commit)
    return (location, try log.write(group, sync: sync))
}
