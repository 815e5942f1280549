import CairnClient
import CairnCore

/// What is timed.
enum Measure: String, CaseIterable {
    case createSnapshot = "CreateSnapshot"
    case createVolume = "CreateVolume from a snapshot"
    case readVolume = "64 KiB of the volume"
    case readSnapshot = "64 KiB of a snapshot"
    case diff = "ListChangedBlocks, 1 changed"
}

/// A volume with so many written chunks and so many snapshots, each of which differs from the one before by one chunk.
struct Subject {
    let chunks: Int
    let snapshots: Int
    private let client: Client
    private let volume: VolumeID
    private let tokens: [Fingerprint]
    /// The latest snapshot; the volume differs from it by one chunk.
    private let latest: SnapshotID

    private static let perCall = 4096
    private static let side = 8

    static func make(_ client: Client, _ tokens: [Fingerprint], chunks: Int, snapshots: Int) async throws -> Subject {
        var new = NewVolume()
        new.size = max(1 << 20, UInt64(chunks) * UInt64(Content.chunkSize.bytes))
        new.chunkSize = Content.chunkSize
        let volume = try await client.createVolume(new).id
        try await inParallel((chunks + perCall - 1) / perCall) { call in
            let range = call * perCall..<min((call + 1) * perCall, chunks)
            _ = try await client.upload(range.map { block($0, tokens[$0 % tokens.count]) }, to: .volume(volume))
        }
        // Chunk 0 is what changes: the most versions of one place.
        var latest: SnapshotID?
        for number in 0..<snapshots {
            _ = try await client.upload([block(0, tokens[number % tokens.count])], to: .volume(volume))
            latest = try await client.createSnapshot(of: volume).id
        }
        _ = try await client.upload([block(0, tokens[snapshots % tokens.count])], to: .volume(volume))
        return Subject(
            chunks: chunks,
            snapshots: snapshots,
            client: client,
            volume: volume,
            tokens: tokens,
            latest: latest!
        )
    }

    private static func block(_ chunk: Int, _ token: Fingerprint) -> BlockUpload {
        let length = Content.chunkSize.bytes
        return BlockUpload(offset: UInt64(chunk) * UInt64(length), length: UInt32(length), content: .token(token))
    }

    private static func inParallel(_ count: Int, _ body: @escaping @Sendable (Int) async throws -> Void) async throws {
        try await withThrowingTaskGroup(of: Void.self) { group in
            for index in 0..<count {
                if index >= side { try await group.next() }
                group.addTask { try await body(index) }
            }
            try await group.waitForAll()
        }
    }

    /// How long one call takes; what it made is deleted again, so that the next one finds the same.
    func time(_ measure: Measure, _ round: Int) async throws -> Duration {
        let clock = ContinuousClock()
        let start = clock.now
        switch measure {
        case .createSnapshot:
            let made = try await client.createSnapshot(of: volume).id
            let taken = clock.now - start
            try await client.deleteSnapshot(made)
            return taken
        case .createVolume:
            var new = NewVolume()
            new.snapshot = latest
            let made = try await client.createVolume(new).id
            let taken = clock.now - start
            try await client.deleteVolume(made)
            return taken
        case .readVolume: try await read(.volume(volume), round)
        case .readSnapshot: try await read(.snapshot(latest), round)
        case .diff:
            var changed = 0
            for try await _ in client.changedBlocks(from: .snapshot(latest), to: .volume(volume)) { changed += 1 }
            precondition(changed == 1, "\(changed) chunks differ")
        }
        return clock.now - start
    }

    /// Places far apart, and the one that has a version of each snapshot.
    private func read(_ target: BlockTarget, _ round: Int) async throws {
        let chunk = round % 2 == 0 ? 0 : round * 7919 % chunks
        let range = BlockRange(
            offset: UInt64(chunk) * UInt64(Content.chunkSize.bytes),
            length: UInt64(Content.chunkSize.bytes)
        )
        let blocks = try await client.download([range], from: target)
        precondition(blocks.count == 1)
    }
}
