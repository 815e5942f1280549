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

extension NewVolume {
    init(chunks: UInt64) {
        self.init()
        size = max(Limits.volumeSizeMinimum, chunks * UInt64(Content.chunkSize.bytes))
        chunkSize = Content.chunkSize
    }
}

/// A volume with written chunks, one behind the other; with so many snapshots, each of which differs from the one before by one chunk.
final class Subject {
    /// How chunks are written before there are snapshots.
    enum Filling {
        /// Each with data of its own.
        case data
        /// With the staged contents, in turn.
        case token

        /// 4 MiB of data; as many tokens as the server takes.
        var perCall: Int { self == .data ? 64 : Limits.blocksPerCall }
    }

    let snapshots: Int
    /// For the table: of the volume, or of all volumes of its shard, about.
    let chunks: UInt64
    private let client: Client
    private let volume: VolumeID
    /// The first of them is the one that changes.
    private let written: Range<UInt64>
    /// The latest snapshot; the volume differs from it by one chunk.
    private let latest: SnapshotID
    private var seed: UInt64
    private var made: (snapshot: SnapshotID?, volume: VolumeID?)

    init(
        _ client: Client,
        _ tokens: [Fingerprint],
        _ volume: VolumeID,
        _ written: Range<UInt64>,
        by filling: Filling,
        snapshots: Int,
        counted chunks: UInt64
    ) async throws {
        (self.client, self.volume, self.written) = (client, volume, written)
        (self.snapshots, self.chunks) = (snapshots, chunks)
        let seed = volume.uuid.high
        self.seed = seed
        for start in stride(from: 0, to: written.count, by: filling.perCall) {
            let numbers = start..<min(start + filling.perCall, written.count)
            let blocks = numbers.map { number -> BlockUpload in
                let content: BlockUpload.Content =
                    switch filling {
                    case .data: .plain(Content.noise(seed &+ UInt64(number)))
                    case .token: .token(tokens[number % tokens.count])
                    }
                return Self.block(written.lowerBound + UInt64(number), content)
            }
            _ = try await client.upload(blocks, to: .volume(volume))
        }
        // The first chunk is what changes: the most versions of one place.
        let first = written.lowerBound
        var latest: SnapshotID?
        for number in 0..<snapshots {
            let token = tokens[number % tokens.count]
            _ = try await client.upload([Self.block(first, .token(token))], to: .volume(volume))
            latest = try await client.createSnapshot(of: volume).id
        }
        self.latest = latest!
        _ = try await client.upload([Self.block(first, .plain(Content.noise(seed &- 1)))], to: .volume(volume))
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
        let block = Self.block(written.lowerBound, .plain(Content.noise(seed)))
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
        let place = round % 2 == 0 ? 0 : UInt64(round) * 104_729 % UInt64(written.count)
        let chunk = written.lowerBound + place
        let length = UInt64(Content.chunkSize.bytes)
        let blocks = try await client.download([BlockRange(offset: chunk * length, length: length)], from: target)
        precondition(blocks.count == 1)
    }
}
