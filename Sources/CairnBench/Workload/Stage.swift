import CairnClient
import CairnCore
import Synchronization

/// The volumes that a workload works on: made for it, filled where it reads or is to overwrite, and deleted at the end.
final class Stage: Sendable {
    final class Volume: Sendable {
        let id: VolumeID
        /// What clones are made from.
        let snapshot: SnapshotID
        /// The next place of a sequential workload, in requests.
        let cursor = Atomic<UInt64>(0)

        init(id: VolumeID, snapshot: SnapshotID) {
            self.id = id
            self.snapshot = snapshot
        }
    }
    /// By account.
    let volumes: [[Volume]]
    private let clients: [Client]

    private static let parallel = 8
    private static let fillBytes = 1 << 20
    /// Snapshots and clones are of volumes that hold something; what they cost does not depend on how much.
    private static let smallFill: UInt64 = 16 << 20

    private init(_ volumes: [[Volume]], _ clients: [Client]) {
        self.volumes = volumes
        self.clients = clients
    }

    /// - Parameters:
    ///   - isStopped: asked now and then.
    ///   - progress: told how many bytes of how many were written, and read, so far.
    /// - Throws: `setUp`, with what was made deleted again.
    static func make(
        for workload: Workload,
        _ options: WorkloadOptions,
        _ connections: [BenchConnection],
        isStopped: @escaping @Sendable () -> Bool = { false },
        progress: @escaping @Sendable (_ done: UInt64, _ of: UInt64) -> Void = { _, _ in }
    ) async throws(BenchError) -> Stage {
        let accounts = (connections.map(\.account).max() ?? 0) + 1
        let clients = (0..<accounts).map { account in connections.first { $0.account == account }!.client }
        let fill = Fill(
            workload,
            options,
            volumes: accounts * options.volumes,
            isStopped: isStopped,
            progress: progress
        )
        let made = Mutex<[[Volume]]>(Array(repeating: [], count: accounts))
        do {
            try await inParallel(accounts * options.volumes) { number in
                let account = number % accounts
                let volume = try await fill.make(number, client: clients[account])
                made.withLock { $0[account].append(volume) }
            }
        } catch {
            await Stage(made.withLock { $0 }, clients).cleanUp()
            if let error = error as? BenchError { throw error }
            throw BenchError(.setUp, "the volumes could not be made: \((error as? ClientError)?.text ?? "\(error)")")
        }
        return Stage(made.withLock { $0 }, clients)
    }

    /// Deletes the volumes; what cannot be deleted is left.
    func cleanUp() async {
        for (account, volumes) in volumes.enumerated() {
            for volume in volumes {
                try? await clients[account].deleteVolume(volume.id, cancellingSnapshots: true)
                try? await clients[account].deleteSnapshot(volume.snapshot)
            }
        }
    }

    static func inParallel(_ count: Int, _ body: @escaping @Sendable (Int) async throws -> Void) async throws {
        try await withThrowingTaskGroup(of: Void.self) { group in
            for index in 0..<count {
                if index >= parallel { try await group.next() }
                group.addTask { try await body(index) }
            }
            try await group.waitForAll()
        }
    }
}

extension Stage {
    /// Makes volumes, fills them, and reads them.
    private final class Fill: Sendable {
        private let workload: Workload
        private let options: WorkloadOptions
        /// Of each volume.
        private let bytes: UInt64
        private let isRead: Bool
        private let total: UInt64
        private let done = Atomic<UInt64>(0)
        private let isStopped: @Sendable () -> Bool
        private let progress: @Sendable (UInt64, UInt64) -> Void

        init(
            _ workload: Workload,
            _ options: WorkloadOptions,
            volumes: Int,
            isStopped: @escaping @Sendable () -> Bool,
            progress: @escaping @Sendable (UInt64, UInt64) -> Void
        ) {
            self.workload = workload
            self.options = options
            self.isStopped = isStopped
            self.progress = progress
            let isStorm = workload == .snapshots || workload == .clones
            let isFull = options.fillsVolumes(of: workload)
            bytes = isFull ? options.volumeBytes : isStorm ? min(options.volumeBytes, Stage.smallFill) : 0
            isRead = isFull && options.readsFirst
            total = bytes * UInt64(volumes) * (isRead ? 2 : 1)
        }

        func make(_ number: Int, client: Client) async throws -> Volume {
            var new = NewVolume()
            new.size = options.volumeBytes
            new.chunkSize = options.chunkSize
            new.tags = ["made-by": "cairn-bench"]
            let made = try await client.createVolume(new)
            do {
                try await fill(made.id, number, client)
                if isRead { try await read(made.id, client) }
                guard workload == .clones else { return Volume(id: made.id, snapshot: made.initialSnapshot) }
                return Volume(id: made.id, snapshot: try await client.createSnapshot(of: made.id).id)
            } catch {
                try? await client.deleteVolume(made.id)
                throw error
            }
        }

        private func fill(_ volume: VolumeID, _ number: Int, _ client: Client) async throws {
            guard bytes > 0 else { return }
            let content = try ContentPlan(
                unitBytes: options.chunkSize.bytes,
                dedup: options.dedup,
                compression: options.compression,
                seed: options.seed ^ 0xF111
            )
            let step = max(Stage.fillBytes, options.chunkSize.bytes)
            let perVolume = (Int(bytes) + step - 1) / step
            let unitsPerStep = step / options.chunkSize.bytes
            try await Stage.inParallel(perVolume) { [self] piece in
                guard !isStopped() else { throw BenchError(.setUp, "interrupted") }
                let offset = piece * step
                let buffer = BufferPool.shared.buffer(capacity: step)
                buffer.count = min(step, Int(bytes) - offset)
                content.fill(buffer, first: UInt64((number * perVolume + piece) * unitsPerStep))
                let length = UInt32(buffer.count)
                let block = BlockUpload(offset: UInt64(offset), length: length, content: .plain(buffer.slice))
                _ = try await client.upload([block], to: .volume(volume), durability: .onFlush)
                progress(done.wrappingAdd(UInt64(length), ordering: .relaxed).newValue, total)
            }
            _ = try await client.flush(volume)
        }

        /// Chunk by chunk: of long reads the server's page cache keeps nothing.
        private func read(_ volume: VolumeID, _ client: Client) async throws {
            let step = UInt64(options.chunkSize.bytes)
            try await Stage.inParallel(Int((bytes + step - 1) / step)) { [self] chunk in
                guard !isStopped() else { throw BenchError(.setUp, "interrupted") }
                let offset = UInt64(chunk) * step
                let range = BlockRange(offset: offset, length: min(step, bytes - offset))
                _ = try await client.download([range], from: .volume(volume))
                progress(done.wrappingAdd(range.length, ordering: .relaxed).newValue, total)
            }
        }
    }
}
