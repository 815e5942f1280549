import CairnCore
import CairnWire

/// A volume, or a snapshot in progress or complete: what it must hold, and what it may.
///
/// A shard's log is one sequence, and a writer's calls come one after the other: so what is found after a crash is what was
/// durable, and of the calls after that the first so many, each wholly. That is more than the specification promises of writes
/// that were not flushed, and what the log is made to give.
struct Subject: Sendable {
    let target: Wire.Target.Target
    let id: [UInt8]
    /// For ``Cell/place``: of this image alone.
    let image: UInt64
    let chunkSize: UInt32
    /// What is acknowledged as durable.
    private(set) var certain: Picture
    /// Calls since then, in order: sent, perhaps answered, not known to be durable.
    private(set) var pending: [[Change]] = []
    /// With all of them.
    private(set) var latest: Picture

    init(_ target: Wire.Target.Target, _ id: [UInt8], image: UInt64, chunkSize: UInt32, holding picture: Picture) {
        (self.target, self.id, self.image, self.chunkSize) = (target, id, image, chunkSize)
        (certain, latest) = (picture, picture)
    }

    var chunkSectors: Int { Int(chunkSize) / Picture.sector }
    var range: Range<UInt64> { 0..<UInt64(latest.cells.count * Picture.sector) }

    mutating func send(_ changes: [Change]) {
        pending.append(changes)
        latest.apply(changes)
    }

    /// The call was refused, and nothing of it was done.
    mutating func takeBack() {
        pending.removeLast()
        latest = certain
        for changes in pending { latest.apply(changes) }
    }

    /// Everything that was sent is durable.
    mutating func settle() {
        certain = latest
        pending = []
    }

    /// After a crash: what is found becomes what is certain.
    /// - Returns: how many of the calls that nobody had promised are there.
    mutating func recover(_ found: Picture, _ name: String) throws -> Int {
        var candidate = certain
        var fitting: (count: Int, picture: Picture)? = candidate == found ? (0, candidate) : nil
        for (index, changes) in pending.enumerated() {
            candidate.apply(changes)
            if candidate == found { fitting = (index + 1, candidate) }
        }
        guard let fitting else {
            throw Loss(
                "\(name) holds neither what is durable (\(found.difference(from: certain))) nor that and the first of \(pending.count) later calls (\(found.difference(from: latest)))"
            )
        }
        (certain, latest, pending) = (fitting.picture, fitting.picture, [])
        return fitting.count
    }
}

/// A call that changes more than bytes; repeated with its key until its outcome is known (SPEC C5).
enum Deed: Sendable {
    case snapshot(volume: Int, key: [UInt8])
    case clone(snapshot: Int, key: [UInt8])
    case deleteSnapshot(Int, key: [UInt8])
    case deleteVolume(Int, key: [UInt8])
    case beginLocal(key: [UInt8])
    case completeLocal
    /// The backup before the last one.
    case deleteBackup(key: [UInt8])
}

/// The calls of ``Deed``, which have idempotency keys here.
extension Caller {
    func clone(_ snapshot: [UInt8], key: [UInt8]) async throws -> [UInt8] {
        try await call(Wire.CreateVolumeRequest(snapshotID: snapshot, kind: .remote, idempotencyKey: key)).message
            .volumeID
    }
    func deleteSnapshot(_ snapshot: [UInt8], key: [UInt8]) async throws {
        _ = try await call(Wire.DeleteSnapshotRequest(snapshotID: snapshot, idempotencyKey: key))
    }
    func deleteVolume(_ volume: [UInt8], key: [UInt8]) async throws {
        _ = try await call(Wire.DeleteVolumeRequest(volumeID: volume, idempotencyKey: key))
    }
    func flush(_ volume: [UInt8]) async throws { _ = try await call(Wire.FlushRequest(volumeID: volume)) }

    /// All of the account's, that are not on their way out.
    func liveVolumes() async throws -> Set<[UInt8]> {
        let page = try await call(Wire.ListVolumesRequest(page: .init(limit: 1000))).message
        guard page.nextPageToken.isEmpty else { throw HarnessError("more volumes than a page") }
        return Set(page.volumes.filter { $0.state == .available }.map(\.volumeID))
    }
    func liveSnapshots(of volume: [UInt8]) async throws -> Set<[UInt8]> {
        let page = try await call(Wire.ListSnapshotsRequest(page: .init(limit: 1000), volumeID: volume)).message
        guard page.nextPageToken.isEmpty else { throw HarnessError("more snapshots than a page") }
        return Set(page.snapshots.filter { $0.state == .complete || $0.state == .inProgress }.map(\.snapshotID))
    }
}
