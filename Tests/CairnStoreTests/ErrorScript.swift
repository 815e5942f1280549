import CairnCore
import CairnCrypto
import CairnTesting

@testable import CairnStore

/// What a store must hold, by the names of volumes and snapshots: a stamp for each sector, 0 for zeros.
struct ErrorState: Hashable {
    static let chunk = ChunkSize(bytes: 8192)!
    static let sectors = 128
    static let account = AccountID("tester")!

    var volumes: [String: [UInt32]] = [:]
    var snapshots: [String: [UInt32]] = [:]

    init() {}

    /// What the shard holds.
    init(of shard: Shard) throws {
        let view = shard.makeView()
        for volume in try view.volumes(of: Self.account, limit: 1000) where volume.state == .active {
            volumes[volume.tags["name"]!] = try Self.read(ReadSource(volume), shard)
        }
        for snapshot in try view.snapshots(of: Self.account, limit: 1000)
        where snapshot.state == .complete && snapshot.description != "initial" {
            snapshots[snapshot.description] = try Self.read(ReadSource(snapshot), shard)
        }
    }

    private struct Torn: Error { let sector: UInt64 }

    /// A sector that holds no stamp as it was written is torn, or another's.
    private static func read(_ source: ReadSource, _ shard: Shard) throws -> [UInt32] {
        var stamps: [UInt32] = []
        for piece in try shard.read(source, [0..<UInt64(sectors) * 512], acceptsLZ4: false) {
            guard case .plain(let slice, _) = piece.content else {
                stamps += [UInt32](repeating: 0, count: piece.length / 512)
                continue
            }
            for start in stride(from: 0, to: slice.count, by: 512) {
                let stamp = withExtendedLifetime(slice) {
                    let sector = UnsafeRawBufferPointer(rebasing: slice.bytes[start..<start + 512])
                    let stamp = sector.load(as: UInt32.self)
                    let whole = bytes([stamp])
                    return withExtendedLifetime(whole) { sector.elementsEqual(whole.bytes) } ? stamp : nil
                }
                guard let stamp else { throw Torn(sector: piece.offset / 512 + UInt64(start / 512)) }
                stamps.append(stamp)
            }
        }
        return stamps
    }

    static func bytes(_ stamps: some Collection<UInt32>) -> BufferSlice {
        let buffer = BufferPool.shared.buffer(capacity: stamps.count * 512)
        for (place, stamp) in stamps.enumerated() {
            for word in 0..<128 {
                let value = stamp == 0 ? 0 : stamp &+ UInt32(word) &* 0x9e37_79b1
                buffer.memory.storeBytes(of: value, toByteOffset: place * 512 + word * 4, as: UInt32.self)
            }
        }
        buffer.count = stamps.count * 512
        return buffer.slice
    }
}

/// A change that an error may meet.
enum ErrorOperation: Sendable {
    case createVolume(String, source: String?)
    case deleteVolume(String)
    case snapshot(String, of: String)
    case deleteSnapshot(String)
    case chunks(String, from: Int, count: Int, stamp: UInt32, CommitDurability)
    case part(String, sector: Int, count: Int, stamp: UInt32, CommitDurability)
    case hole(String, chunk: Int)
    /// Makes durable what was answered before.
    case flush

    var isDurable: Bool {
        switch self {
        case .chunks(_, _, _, _, let durability), .part(_, _, _, _, let durability): durability == .durable
        default: true
        }
    }

    /// The next of a script: mostly writes, some of them not flushed; few volumes, so that much is written over and freed.
    static func random(_ state: ErrorState, _ random: inout SeededRandom, stamp: inout UInt32) -> ErrorOperation {
        // Sorted: a dictionary's own order is another one in each process.
        let volumes = state.volumes.keys.sorted()
        let snapshots = state.snapshots.keys.sorted()
        stamp += 64
        let name = "\(stamp)"
        guard let volume = volumes.randomElement(using: &random) else { return .createVolume(name, source: nil) }
        let durability = random.chance(40) ? CommitDurability.onFlush : .durable
        switch random.below(100) {
        case ..<4 where volumes.count < 4:
            return .createVolume(name, source: random.chance(50) ? snapshots.randomElement(using: &random) : nil)
        case ..<7 where volumes.count > 2: return .deleteVolume(volume)
        case ..<15 where snapshots.count < 4: return .snapshot(name, of: volume)
        case ..<25: if let snapshot = snapshots.randomElement(using: &random) { return .deleteSnapshot(snapshot) }
        case ..<30: return .hole(volume, chunk: random.below(8))
        case ..<36: return .flush
        case ..<60:
            let sector = random.below(ErrorState.sectors)
            let room = min(16 - sector % 16, ErrorState.sectors - sector)
            return .part(volume, sector: sector, count: 1 + random.below(min(room, 15)), stamp: stamp, durability)
        default: break
        }
        let from = random.below(8)
        return .chunks(volume, from: from, count: 1 + random.below(8 - from), stamp: stamp, durability)
    }

    /// The same, of the reference.
    func apply(to state: inout ErrorState) {
        switch self {
        case .createVolume(let name, let source):
            state.volumes[name] =
                source.map { state.snapshots[$0]! } ?? [UInt32](repeating: 0, count: ErrorState.sectors)
        case .deleteVolume(let name): state.volumes[name] = nil
        case .snapshot(let name, let volume): state.snapshots[name] = state.volumes[volume]!
        case .deleteSnapshot(let name): state.snapshots[name] = nil
        case .chunks(let name, let from, let count, let stamp, _):
            for sector in from * 16..<(from + count) * 16 { state.volumes[name]![sector] = stamp + UInt32(sector % 16) }
        case .part(let name, let sector, let count, let stamp, _):
            for place in 0..<count { state.volumes[name]![sector + place] = stamp + UInt32(place) }
        case .hole(let name, let chunk):
            for sector in chunk * 16..<chunk * 16 + 16 { state.volumes[name]![sector] = 0 }
        case .flush: break
        }
    }

    /// Carried out in a transaction.
    func run(_ transaction: Transaction) throws(StoreError) {
        switch self {
        case .createVolume(let name, let source):
            _ = try transaction.createVolume(
                account: ErrorState.account,
                kind: .remote,
                size: UInt64(ErrorState.sectors) * 512,
                chunkSize: ErrorState.chunk,
                source: try source.map { name throws(StoreError) in try Self.snapshot(name, transaction) },
                affinity: [],
                tags: ["name": name]
            )
        case .deleteVolume(let name): try transaction.deleteVolume(try Self.volume(name, transaction))
        case .snapshot(let name, let volume):
            _ = try transaction.createSnapshot(
                of: try Self.volume(volume, transaction),
                description: name,
                tags: [:]
            )
        case .deleteSnapshot(let name): try transaction.deleteSnapshot(try Self.snapshot(name, transaction))
        case .chunks(let name, let from, let count, let stamp, _):
            let volume = try Self.volume(name, transaction)
            for chunk in from..<from + count {
                let data = chunkData(ErrorState.bytes((0..<16).map { stamp + UInt32($0) }))
                try transaction.writeChunk(ChunkIndex(UInt64(chunk)), of: volume, .data(data))
            }
        case .part(let name, let sector, let count, let stamp, _):
            let bytes = ErrorState.bytes((0..<count).map { stamp + UInt32($0) })
            try transaction.writePatch(at: UInt64(sector) * 512, bytes, of: try Self.volume(name, transaction))
        case .hole(let name, let chunk):
            try transaction.writeChunk(ChunkIndex(UInt64(chunk)), of: try Self.volume(name, transaction), .hole)
        case .flush: break
        }
    }

    private static func volume(_ name: String, _ reader: ManifestReader) throws(StoreError) -> VolumeRecord {
        let all = try reader.volumes(of: ErrorState.account, limit: 1000)
        guard let volume = all.first(where: { $0.tags["name"] == name && $0.state == .active }) else {
            throw StoreError(.invalid, "there is no volume \(name)")
        }
        return volume
    }

    private static func snapshot(_ name: String, _ reader: ManifestReader) throws(StoreError) -> SnapshotRecord {
        let all = try reader.snapshots(of: ErrorState.account, limit: 1000)
        guard let snapshot = all.first(where: { $0.description == name && $0.state == .complete }) else {
            throw StoreError(.invalid, "there is no snapshot \(name)")
        }
        return snapshot
    }
}
