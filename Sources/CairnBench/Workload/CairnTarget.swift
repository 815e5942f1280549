public import CairnClient
import CairnCore
import Synchronization

/// One connection: a client of its own, so that it is known how many operations are under way on it.
public struct BenchConnection: Sendable {
    let client: Client
    /// Whose it is: a place in the list of accounts.
    let account: Int

    public init(client: Client, account: Int) {
        self.client = client
        self.account = account
    }
}

/// A workload's operations on a real server.
final class CairnTarget: LoadTarget {
    /// What only one operation at a time sees: lanes do one after the other.
    private struct Lane {
        var buffer: Buffer?
        var uploads = 0
        var snapshots: [SnapshotID] = []
        var clones: [VolumeID] = []
        /// Operations so far: what random choices are made from.
        var count: UInt64 = 0
    }
    private final class Slot: Sendable {
        let lane = Mutex(Lane())
    }
    private let workload: Workload
    private let options: WorkloadOptions
    private let connections: [BenchConnection]
    private let stage: Stage
    private let slots: [Slot]
    private let content: ContentPlan
    /// Units of ``ContentPlan`` that were handed out.
    private let units = Atomic<UInt64>(0)

    /// - Parameter lanes: lane `l` works on connection `l` modulo their count.
    init(
        _ workload: Workload,
        _ options: WorkloadOptions,
        _ connections: [BenchConnection],
        _ stage: Stage,
        lanes: Int
    ) throws(BenchError) {
        self.workload = workload
        self.options = options
        self.connections = connections
        self.stage = stage
        slots = (0..<lanes).map { _ in Slot() }
        let unit = workload.carriesData ? min(options.requestBytes, options.chunkSize.bytes) : options.chunkSize.bytes
        content = try ContentPlan(
            unitBytes: unit,
            dedup: options.dedup,
            compression: options.compression,
            seed: options.seed
        )
    }

    /// Content beyond this takes its time to make: not on the thread that waits for answers.
    private static let smallBytes = 16 << 10

    func executor(lane: Int) -> (any TaskExecutor)? {
        guard !workload.carriesData || options.requestBytes <= Self.smallBytes else { return nil }
        return connections[lane % connections.count].client.executor
    }

    func perform(lane: Int) async -> Outcome {
        let connection = connections[lane % connections.count]
        let count = slots[lane].lane.withLock { lane in
            lane.count += 1
            return lane.count
        }
        let dice = Mix.hash(options.seed ^ Mix.hash(UInt64(lane) << 40 ^ count))
        let volumes = stage.volumes[connection.account]
        let isSpread = !workload.isSequential
        // Sequential lanes stay with their volume; all lanes of a volume go through it together.
        let place = isSpread ? Int(dice >> 32) % volumes.count : lane / connections.count % volumes.count
        let volume = volumes[place]
        do throws(ClientError) {
            switch workload {
            case .sequentialUpload, .randomUpload: return try await upload(lane, connection, volume, dice)
            case .sequentialDownload, .randomDownload: return try await download(connection, volume, dice)
            case .mixed:
                guard (dice >> 8) % 100 < UInt64(options.readPercent) else {
                    return try await upload(lane, connection, volume, dice)
                }
                return try await download(connection, volume, dice)
            case .describe:
                _ = try await connection.client.describeVolume(volume.id)
                return .done(.describe, bytes: 0)
            case .snapshots: return try await snapshot(lane, connection, volume)
            case .clones: return try await clone(lane, connection, volume)
            }
        } catch {
            return .failed(reason: error.reason)
        }
    }
}

extension CairnTarget {
    private func offset(in volume: Stage.Volume, _ dice: UInt64) -> UInt64 {
        let places = options.volumeBytes / UInt64(options.requestBytes)
        guard !workload.isSequential else {
            return volume.cursor.wrappingAdd(1, ordering: .relaxed).oldValue % places * UInt64(options.requestBytes)
        }
        return Mix.hash(dice) % places * UInt64(options.requestBytes)
    }

    private func upload(
        _ lane: Int,
        _ connection: BenchConnection,
        _ volume: Stage.Volume,
        _ dice: UInt64
    ) async throws(ClientError) -> Outcome {
        if options.durability == .onFlush, options.flushEvery > 0 {
            let isDue = slots[lane].lane.withLock { lane in
                lane.uploads += 1
                return lane.uploads % (options.flushEvery + 1) == 0
            }
            if isDue {
                _ = try await connection.client.flush(volume.id)
                return .done(.flush, bytes: 0)
            }
        }
        let blocks = blocks(lane, at: offset(in: volume, dice))
        _ = try await connection.client.upload(blocks, to: .volume(volume.id), durability: options.durability)
        return .done(.upload, bytes: options.requestBytes)
    }

    /// The next bytes of the plan as one block, or compressed as one for each chunk.
    private func blocks(_ lane: Int, at offset: UInt64) -> [BlockUpload] {
        let perRequest = UInt64((options.requestBytes + content.unitBytes - 1) / content.unitBytes)
        let first = units.wrappingAdd(perRequest, ordering: .relaxed).oldValue
        // A call that was given up may still hold the buffer: then it is left to it.
        let buffer = slots[lane].lane.withLock { lane -> Buffer in
            if lane.buffer == nil || !isKnownUniquelyReferenced(&lane.buffer) {
                lane.buffer = BufferPool.shared.buffer(capacity: options.requestBytes)
            }
            return lane.buffer!
        }
        buffer.count = options.requestBytes
        content.fill(buffer, first: first)
        guard options.compressesFirst else {
            return [BlockUpload(offset: offset, length: UInt32(options.requestBytes), content: .plain(buffer.slice))]
        }
        return stride(from: 0, to: options.requestBytes, by: content.unitBytes).map { start in
            compressed(buffer.slice.part(start..<start + content.unitBytes), at: offset + UInt64(start))
        }
    }

    private func compressed(_ chunk: BufferSlice, at offset: UInt64) -> BlockUpload {
        let sum = Checksum(.crc32c, of: chunk.bytes)
        let target = BufferPool.shared.buffer(capacity: chunk.count)
        // What saves nothing is sent as it is.
        let room = UnsafeMutableRawBufferPointer(rebasing: target.memory[0..<chunk.count - 1])
        let length = UInt32(chunk.count)
        guard let count = LZ4.compress(chunk.bytes, into: room) else {
            return BlockUpload(offset: offset, length: length, content: .plain(chunk), checksum: sum)
        }
        target.count = count
        return BlockUpload(offset: offset, length: length, content: .lz4(target.slice), checksum: sum)
    }

    private func download(
        _ connection: BenchConnection,
        _ volume: Stage.Volume,
        _ dice: UInt64
    ) async throws(ClientError) -> Outcome {
        let range = BlockRange(offset: offset(in: volume, dice), length: UInt64(options.requestBytes))
        let blocks = try await connection.client.download([range], from: .volume(volume.id))
        // Volumes that are read were filled: a hole is data that was lost.
        let bytes = blocks.reduce(0) { sum, block in
            if case .data = block.content { sum + Int(block.length) } else { sum }
        }
        guard bytes == options.requestBytes else { return .failed(reason: "DATA_MISSING") }
        return .done(.download, bytes: bytes)
    }

    private func snapshot(
        _ lane: Int,
        _ connection: BenchConnection,
        _ volume: Stage.Volume
    ) async throws(ClientError) -> Outcome {
        let client = connection.client
        let isMade = try await replace(
            in: \.snapshots,
            of: lane,
            delete: { (oldest) async throws(ClientError) in try await client.deleteSnapshot(oldest) },
            make: { () async throws(ClientError) in try await client.createSnapshot(of: volume.id).id }
        )
        return .done(isMade ? .createSnapshot : .deleteSnapshot, bytes: 0)
    }

    private func clone(
        _ lane: Int,
        _ connection: BenchConnection,
        _ volume: Stage.Volume
    ) async throws(ClientError) -> Outcome {
        let client = connection.client
        let isMade = try await replace(
            in: \.clones,
            of: lane,
            delete: { (oldest) async throws(ClientError) in try await client.deleteVolume(oldest) },
            make: { () async throws(ClientError) in
                var new = NewVolume()
                new.snapshot = volume.snapshot
                return try await client.createVolume(new).id
            }
        )
        return .done(isMade ? .createVolume : .deleteVolume, bytes: 0)
    }

    /// One operation: makes another, or deletes the lane's oldest where it keeps enough. True where one was made.
    private func replace<ID: Sendable>(
        in kept: WritableKeyPath<Lane, [ID]> & Sendable,
        of lane: Int,
        delete: (ID) async throws(ClientError) -> Void,
        make: () async throws(ClientError) -> ID
    ) async throws(ClientError) -> Bool {
        let oldest = slots[lane].lane.withLock { lane in
            lane[keyPath: kept].count > options.keep ? lane[keyPath: kept].removeFirst() : nil
        }
        guard let oldest else {
            let made = try await make()
            slots[lane].lane.withLock { $0[keyPath: kept].append(made) }
            return true
        }
        do {
            try await delete(oldest)
        } catch {
            slots[lane].lane.withLock { $0[keyPath: kept].append(oldest) }
            throw error
        }
        return false
    }
}

extension CairnTarget {
    /// Deletes the snapshots and clones that the lanes still have; what cannot be deleted is left.
    func cleanUp() async {
        await withTaskGroup(of: Void.self) { group in
            for (lane, slot) in slots.enumerated() {
                let client = connections[lane % connections.count].client
                let (snapshots, clones) = slot.lane.withLock { ($0.snapshots, $0.clones) }
                group.addTask {
                    for snapshot in snapshots { try? await client.deleteSnapshot(snapshot) }
                    for clone in clones { try? await client.deleteVolume(clone) }
                }
            }
        }
    }
}
