import CairnClient
import CairnCore

/// What is timed.
enum Measure: String, CaseIterable {
    case describe = "DescribeVolume"
    case write = "64 KiB written, synced"
    case readVolume = "64 KiB of the volume"
    case readSnapshot = "64 KiB of a snapshot"
    case createSnapshot = "CreateSnapshot"
    case createVolume = "CreateVolume from a snapshot"
    case diff = "ListChangedBlocks, 1 changed"
}

/// The chunks that the volumes are made of: sent once, then named by token.
enum Content {
    static let chunkSize = ChunkSize(bytes: 65536)!
    private static let distinct = 64

    static func stage(_ client: Client) async throws -> [Fingerprint] {
        try await client.stage((0..<distinct).map { noise(UInt64($0)) }, chunkSize: chunkSize).tokens
    }

    /// A chunk that does not compress, another for each seed.
    static func noise(_ seed: UInt64) -> BufferSlice {
        let buffer = BufferPool.shared.buffer(capacity: chunkSize.bytes)
        var state = (seed &+ 1) &* 0x9e37_79b9_7f4a_7c15 | 1
        for place in stride(from: 0, to: chunkSize.bytes, by: 8) {
            state ^= state << 13
            state ^= state >> 7
            state ^= state << 17
            buffer.memory.storeBytes(of: state, toByteOffset: place, as: UInt64.self)
        }
        buffer.count = chunkSize.bytes
        return buffer.slice
    }
}

/// A volume of which the first chunks are rows without data, and those behind are really there; with so many snapshots, each of which
/// differs from the one before by one chunk.
final class Subject {
    /// Those that are there, of which the first is the one that changes.
    static let chunks: UInt64 = 1024

    let snapshots: Int
    /// Of all volumes of its shard, about.
    let shardChunks: UInt64
    private let client: Client
    private let volume: VolumeID
    /// Where what is there begins.
    private let filled: UInt64
    /// The latest snapshot; the volume differs from it by one chunk.
    private let latest: SnapshotID
    private var seed: UInt64
    private var made: (snapshot: SnapshotID?, volume: VolumeID?)

    private static let perCall: UInt64 = 64

    /// An empty volume in the same shard.
    static func volume(beside other: VolumeID, _ client: Client) async throws -> VolumeID {
        while true {
            var new = NewVolume()
            (new.size, new.chunkSize) = (chunks * UInt64(Content.chunkSize.bytes), Content.chunkSize)
            let volume = try await client.createVolume(new).id
            if volume.uuid.shard == other.uuid.shard { return volume }
            try await client.deleteVolume(volume)
        }
    }

    init(
        _ client: Client,
        _ tokens: [Fingerprint],
        _ volume: VolumeID,
        filled: UInt64,
        snapshots: Int,
        inShardOf shardChunks: UInt64? = nil
    ) async throws {
        (self.client, self.volume, self.filled, self.snapshots) = (client, volume, filled, snapshots)
        self.shardChunks = shardChunks ?? filled
        let seed = volume.uuid.high
        self.seed = seed
        for first in stride(from: 0, to: Self.chunks, by: Int(Self.perCall)) {
            let blocks = (first..<first + Self.perCall).map {
                Self.block(filled + $0, .plain(Content.noise(seed &+ $0)))
            }
            _ = try await client.upload(blocks, to: .volume(volume))
        }
        // The first chunk is what changes: the most versions of one place.
        var latest: SnapshotID?
        for number in 0..<snapshots {
            let token = tokens[number % tokens.count]
            _ = try await client.upload([Self.block(filled, .token(token))], to: .volume(volume))
            latest = try await client.createSnapshot(of: volume).id
        }
        self.latest = latest!
        _ = try await client.upload([Self.block(filled, .plain(Content.noise(seed &- 1)))], to: .volume(volume))
    }

    /// - Returns: seconds.
    func waitForSeal(since begin: ContinuousClock.Instant) async throws -> Int {
        while try await client.describeSnapshot(latest).seal == .pending {
            guard ContinuousClock.now - begin < .seconds(7200) else { throw NoSeal(volume: volume) }
            try await Task.sleep(for: .milliseconds(500))
        }
        return Int((ContinuousClock.now - begin) / .seconds(1))
    }

    struct NoSeal: Error {
        let volume: VolumeID
    }

    private static func block(_ chunk: UInt64, _ content: BlockUpload.Content) -> BlockUpload {
        let length = Content.chunkSize.bytes
        return BlockUpload(offset: chunk * UInt64(length), length: UInt32(length), content: content)
    }

    /// How long one call takes.
    func time(_ measure: Measure, _ round: Int) async throws -> Duration {
        let clock = ContinuousClock()
        seed &+= 0x1_0000
        let block = Self.block(filled, .plain(Content.noise(seed)))
        let start = clock.now
        switch measure {
        case .describe: _ = try await client.describeVolume(volume)
        case .write: _ = try await client.upload([block], to: .volume(volume))
        case .readVolume: try await read(.volume(volume), round)
        case .readSnapshot: try await read(.snapshot(latest), round)
        case .createSnapshot: made.snapshot = try await client.createSnapshot(of: volume).id
        case .createVolume:
            var new = NewVolume()
            new.snapshot = latest
            made.volume = try await client.createVolume(new).id
        case .diff:
            var changed = 0
            for try await _ in client.changedBlocks(from: .snapshot(latest), to: .volume(volume)) { changed += 1 }
            precondition(changed == 1, "\(changed) chunks differ")
        }
        return clock.now - start
    }

    /// What a call made is deleted again, so that the next one finds the same.
    func tidy(_ measure: Measure) async throws {
        if let snapshot = made.snapshot { try await client.deleteSnapshot(snapshot) }
        if let volume = made.volume { try await client.deleteVolume(volume) }
        made = (nil, nil)
        // The background has work of it.
        if measure == .createSnapshot || measure == .createVolume { try await Task.sleep(for: .milliseconds(10)) }
    }

    /// Places far apart, and the one that has a version of each snapshot.
    private func read(_ target: BlockTarget, _ round: Int) async throws {
        let chunk = filled + (round % 2 == 0 ? 0 : UInt64(round) * 397 % Self.chunks)
        let length = UInt64(Content.chunkSize.bytes)
        let blocks = try await client.download([BlockRange(offset: chunk * length, length: length)], from: target)
        precondition(blocks.count == 1)
    }
}
