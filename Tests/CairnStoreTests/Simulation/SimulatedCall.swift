import CairnCore
import CairnCrypto

@testable import CairnLog
@testable import CairnStore

/// One change that a client asked for, what became of it, and what it means for the reference.
// Safety: used by whoever has the simulation's baton.
final class SimulatedCall: @unchecked Sendable {
    enum Change {
        case createVolume(sectors: Int, source: SnapshotID?)
        case createSnapshot(VolumeID)
        case deleteSnapshot(SnapshotID)
        case deleteVolume(VolumeID)
        case resize(VolumeID, sectors: Int)
        /// - refused: it fails in the end, and must leave no trace.
        case write(VolumeID, [SimulatedPiece], refused: Bool)
        case stage(kind: UInt32, ChunkData, until: UInt64)
        case lease(kind: UInt32, Fingerprint, until: UInt64)
        case releaseLease(kind: UInt32, Fingerprint)
    }

    let number: Int
    let change: Change
    let durability: CommitDurability
    let chunkSize: ChunkSize
    static let account = AccountID("model")!

    /// As its body found things the last time that it ran: before that it was undone.
    private(set) var lsn: UInt64?
    private(set) var order = 0
    private(set) var result: Result<Void, StoreError>?
    private(set) var made: (volume: VolumeID?, snapshot: SnapshotID)?
    private(set) var keepsInitial = false
    /// Nil until it is answered.
    var answer: Result<Void, StoreError>?

    init(_ number: Int, _ change: Change, _ durability: CommitDurability, _ chunkSize: ChunkSize) {
        (self.number, self.change, self.durability, self.chunkSize) = (number, change, durability, chunkSize)
    }

    var pieces: [SimulatedPiece] {
        if case .write(_, let pieces, _) = change { return pieces }
        return []
    }
    var records: Int {
        if case .stage = change { return 1 }
        return pieces.count
    }
    var bytes: Int {
        if case .stage(_, let data, _) = change { return data.bytes.count }
        return pieces.reduce(0) { $0 + $1.bytes }
    }
    var reclaims: Bool {
        switch change {
        case .deleteSnapshot, .deleteVolume, .releaseLease: true
        default: false
        }
    }
    /// Under which its transaction notes that it was carried out (SPEC C5): so that recovery says which calls are there.
    var key: [UInt8] { withUnsafeBytes(of: UInt64(number).bigEndian, Array.init) }

    /// Whether it was said for certain that nothing of it is there.
    var isRefused: Bool {
        guard case .failure(let error)? = answer else { return false }
        return error.code != .fenced && error.code != .closed
    }

    /// The body of the transaction.
    func perform(_ transaction: Transaction, order: Int) throws(StoreError) {
        (lsn, self.order) = (transaction.group.lsn.rawValue, order)
        let result = Result { () throws(StoreError) in
            try carryOut(transaction)
            let record = IdempotencyRecord(
                call: .createVolume,
                parameters: Fingerprint(bytes: Array(repeating: 0, count: 32))!,
                answer: [],
                createdAt: transaction.execution.milliseconds
            )
            try transaction.putIdempotencyRecord(record, account: Self.account, key: key)
        }
        self.result = result
        try result.get()
    }

    private static let gone = StoreError(.aborted, "it is gone")

    private func carryOut(_ transaction: Transaction) throws(StoreError) {
        switch change {
        case .createVolume(let sectors, let source):
            var record: SnapshotRecord?
            if let source {
                guard let found = try transaction.snapshot(source) else { throw Self.gone }
                record = found
            }
            let volume = try transaction.createVolume(
                account: Self.account,
                kind: .remote,
                size: UInt64(sectors) * 512,
                chunkSize: chunkSize,
                source: record,
                affinity: [],
                tags: ["number": "\(number)"]
            )
            made = (volume.id, volume.initialSnapshot)
        case .createSnapshot(let id):
            guard let volume = try transaction.volume(id) else { throw Self.gone }
            made = (nil, try transaction.createSnapshot(of: volume, description: "\(number)", tags: [:]).id)
        case .deleteSnapshot(let id):
            guard let snapshot = try transaction.snapshot(id) else { throw Self.gone }
            try transaction.deleteSnapshot(snapshot)
        case .deleteVolume(let id):
            guard let volume = try transaction.volume(id) else { throw Self.gone }
            try transaction.deleteVolume(volume)
            keepsInitial = try transaction.snapshot(volume.initialSnapshot) != nil
        case .resize(let id, let sectors):
            guard let volume = try transaction.volume(id), volume.size <= UInt64(sectors) * 512 else {
                throw Self.gone
            }
            try transaction.resizeVolume(volume, to: UInt64(sectors) * 512)
        case .write(let id, let pieces, let isRefused):
            guard let volume = try transaction.volume(id) else { throw Self.gone }
            for piece in pieces { try piece.write(to: volume, transaction) }
            if isRefused { throw StoreError(.aborted, "on purpose") }
        case .stage(_, let data, let end):
            try transaction.stage(data, chunkSize: chunkSize, account: Self.account, until: end)
        case .lease(_, let token, let end):
            guard try transaction.lease(token, account: Self.account, until: end) else { throw Self.gone }
        case .releaseLease(_, let token): try transaction.releaseLease(token, account: Self.account)
        }
    }
}

/// A change of one chunk, or of a part of it, prepared as a service would.
struct SimulatedPiece: Sendable {
    enum Content: Sendable {
        case whole(ChunkIndex, Transaction.ChunkContent)
        case part(BufferSlice)
    }
    let sectors: Range<Int>
    let stamps: [UInt32]
    let content: Content
    /// Of a chunk of which there are few: the client may name it, where it was told that it is there.
    var token: UInt32?

    var bytes: Int {
        switch content {
        case .whole(_, .data(let data)): data.bytes.count
        case .whole: 0
        case .part(let bytes): bytes.count
        }
    }

    func write(to volume: VolumeRecord, _ transaction: Transaction) throws(StoreError) {
        switch content {
        case .whole(let chunk, let content): try transaction.writeChunk(chunk, of: volume, content)
        case .part(let bytes): try transaction.writePatch(at: UInt64(sectors.lowerBound) * 512, bytes, of: volume)
        }
    }
}

/// What must be there.
struct SimulatedState {
    struct Snapshot {
        let content: ModelContent
        var isInitial: Bool
    }
    struct Volume {
        var content: ModelContent
        let initial: SnapshotID
    }
    var volumes: [VolumeID: Volume] = [:]
    var snapshots: [SnapshotID: Snapshot] = [:]
    /// By the kind of chunk; milliseconds since 1970.
    var leases: [UInt32: UInt64] = [:]

    /// In an order that is the same for the same seed.
    var volumeIDs: [VolumeID] { volumes.keys.sorted() }
    var snapshotIDs: [SnapshotID] { snapshots.keys.sorted() }

    /// Of a call whose body succeeded, in the order of commits.
    /// - Throws: where it could not have succeeded.
    mutating func apply(_ call: SimulatedCall) throws {
        func require(_ condition: Bool) throws {
            guard condition else { throw ModelFailure("call \(call.number) changed what is not there") }
        }
        switch call.change {
        case .createVolume(let sectors, let source):
            try require(source.map { snapshots[$0] != nil } ?? true)
            var content =
                source.flatMap { snapshots[$0]?.content } ?? ModelContent(sectors: [], chunkSize: call.chunkSize)
            content.sectors += Array(repeating: 0, count: sectors - content.sectors.count)
            guard let made = call.made, let id = made.volume else { throw ModelFailure("nothing was made") }
            volumes[id] = Volume(content: content, initial: made.snapshot)
            snapshots[made.snapshot] = Snapshot(content: content, isInitial: true)
        case .createSnapshot(let id):
            guard let volume = volumes[id], let made = call.made else { return try require(false) }
            snapshots[made.snapshot] = Snapshot(content: volume.content, isInitial: false)
        case .deleteSnapshot(let id): try require(snapshots.removeValue(forKey: id) != nil)
        case .deleteVolume(let id):
            guard let volume = volumes.removeValue(forKey: id) else { return try require(false) }
            if call.keepsInitial {
                snapshots[volume.initial]?.isInitial = false
            } else {
                snapshots[volume.initial] = nil
            }
        case .resize(let id, let sectors):
            guard let count = volumes[id]?.content.sectors.count else { return try require(false) }
            volumes[id]?.content.sectors += Array(repeating: 0, count: sectors - count)
        case .write(let id, let pieces, let isRefused):
            try require(!isRefused && volumes[id] != nil)
            for piece in pieces { volumes[id]?.content.sectors.replaceSubrange(piece.sectors, with: piece.stamps) }
        case .stage(let kind, _, let end), .lease(let kind, _, let end): leases[kind] = max(leases[kind] ?? 0, end)
        case .releaseLease(let kind, _): leases[kind] = nil
        }
    }
}
