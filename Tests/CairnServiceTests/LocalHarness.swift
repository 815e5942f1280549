import CairnCore
import CairnCrypto
import CairnWire
import Testing

@testable import CairnService

/// What tests of LOCAL volumes and their snapshots say again and again.
extension ServiceHarness {
    static let chunk = 65536

    func localVolume(size: UInt64 = 1 << 20, from snapshot: [UInt8] = [], chunkSize: UInt32 = 0) throws -> [UInt8] {
        try createVolume(.init(size: size, snapshotID: snapshot, chunkSize: chunkSize, kind: .local)).volumeID
    }

    func begin(_ volume: [UInt8], _ change: (inout Wire.CreateSnapshotRequest) -> Void = { _ in }) throws
        -> Wire.CreateSnapshotResponse
    {
        var request = Wire.CreateSnapshotRequest(volumeID: volume)
        change(&request)
        return try call(service.createSnapshot, request)
    }

    @discardableResult
    func upload(
        _ bytes: [UInt8],
        at offset: UInt64,
        to snapshot: [UInt8],
        as context: CallContext = alice,
        _ change: (inout Wire.UploadBlockRequest) -> Void = { _ in }
    ) throws -> Wire.UploadBlockResponse {
        var request = Wire.UploadBlockRequest(target: .init(target: .snapshotID(snapshot)))
        request.blocks = [Self.block(bytes, at: offset)]
        change(&request)
        return try upload(request, payload: bytes, as: context)
    }

    @discardableResult
    func report(_ percent: UInt32, _ snapshot: [UInt8], rebased: Bool = false) throws -> Wire.SnapshotProgressResponse {
        try call(service.snapshotProgress, .init(target: .snapshotID(snapshot), percent: percent, rebased: rebased))
    }

    func describe(_ snapshot: [UInt8]) throws -> Wire.SnapshotDescription {
        try #require(try call(service.describeSnapshot, .init(target: .snapshotID(snapshot))).snapshot)
    }

    func delete(_ snapshot: [UInt8]) throws {
        _ = try call(service.deleteSnapshot, Wire.DeleteSnapshotRequest(snapshotID: snapshot))
    }

    func snapshotCount(_ volume: [UInt8]) throws -> Int {
        try call(service.listSnapshots, .init(page: .init(limit: 1000), volumeID: volume)).snapshots.count
    }

    func sealed(_ snapshot: [UInt8]) throws -> [UInt8] {
        _ = try eventually { try describe(snapshot).seal?.pending == false }
        return try describe(snapshot).seal?.value ?? []
    }

    static func seal(_ content: [UInt8], chunkSize: Int = chunk) -> [UInt8] {
        var seal = SealBuilder(size: UInt64(content.count), chunkSize: ChunkSize(bytes: chunkSize)!)
        for start in stride(from: 0, to: content.count, by: chunkSize) {
            let part = Array(content[start..<min(start + chunkSize, content.count)])
            seal.add(part.withUnsafeBytes { SHA256.hash($0, padding: chunkSize - part.count) })
        }
        return seal.finish().bytes
    }

    static func token(_ bytes: [UInt8]) -> [UInt8] { bytes.withUnsafeBytes { SHA256.hash($0).bytes } }

    /// Every shard's index counts right.
    func audit() throws {
        for shard in store.shards {
            let problems = try shard.audit().problems
            #expect(problems == [])
        }
    }
}

/// The error that a call must end with.
func refusal<Value>(_ body: () throws -> Value, _ location: SourceLocation = #_sourceLocation) -> ServiceError? {
    do { _ = try body() } catch { return error as? ServiceError }
    Issue.record("the call was answered as if all were well", sourceLocation: location)
    return nil
}
