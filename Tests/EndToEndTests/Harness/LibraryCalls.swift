import CairnClient
import CairnCore
import CairnWire

/// The library's calls, as the tests in `Library` make them: in bytes and ranges.
extension Client {
    /// A volume of 1 MiB in chunks of 64 KiB unless told otherwise.
    func volume(
        _ kind: VolumeKind = .remote,
        size: UInt64 = 1 << 20,
        chunkSize: Int = 65536,
        affinity: [UInt8] = [],
        tags: [String: String] = [:],
        key: IdempotencyKey = IdempotencyKey()
    ) async throws -> CreatedVolume {
        var new = NewVolume()
        (new.kind, new.size, new.chunkSize) = (kind, size, ChunkSize(bytes: chunkSize))
        (new.affinity, new.tags) = (affinity, tags)
        return try await createVolume(new, key: key)
    }

    /// A volume from a snapshot, of its size unless told otherwise.
    func clone(_ snapshot: SnapshotID, _ kind: VolumeKind = .remote, size: UInt64? = nil) async throws -> CreatedVolume
    {
        var new = NewVolume()
        (new.kind, new.size, new.snapshot) = (kind, size, snapshot)
        return try await createVolume(new)
    }

    @discardableResult
    func write(_ bytes: [UInt8], at offset: UInt64 = 0, to target: BlockTarget) async throws -> UploadResult {
        try await upload([.plain(offset, bytes)], to: target)
    }

    /// The bytes of a range; holes and zeros are zeros.
    func read(_ target: BlockTarget, _ range: Range<UInt64> = 0..<1 << 20) async throws -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(range.count)
        for block in try await download([range.block], from: target) {
            if case .data(let data) = block.content {
                bytes.append(contentsOf: data.bytes)
            } else {
                bytes.append(contentsOf: repeatElement(0, count: Int(block.length)))
            }
        }
        return bytes
    }

    /// A LOCAL volume's next snapshot, complete, with `bytes` from the start on.
    func backUp(_ bytes: [UInt8], of volume: VolumeID) async throws -> SnapshotID {
        let made = try await createSnapshot(of: volume)
        _ = try await upload([.plain(0, bytes)], to: .snapshot(made.id), progress: 100)
        return made.id
    }
}

extension ClientOptions {
    /// Every answer is the caller's: nothing is repeated.
    static var once: ClientOptions {
        var options = ClientOptions()
        options.retry.repetitions = 0
        return options
    }
}

extension BlockUpload {
    static func plain(_ offset: UInt64, _ bytes: [UInt8]) -> BlockUpload {
        BlockUpload(offset: offset, length: UInt32(bytes.count), content: .plain(bytes.slice))
    }

    /// - Parameter packed: sent instead of what `bytes` compresses to.
    static func lz4(
        _ offset: UInt64,
        _ bytes: [UInt8],
        packed: [UInt8]? = nil,
        checkedBy algorithm: ChecksumAlgorithm = .crc32c
    ) -> BlockUpload {
        BlockUpload(
            offset: offset,
            length: UInt32(bytes.count),
            content: .lz4((packed ?? EndToEndTests.Content.lz4(bytes)).slice),
            checksum: bytes.checksum(algorithm)
        )
    }

    static func token(_ offset: UInt64, _ token: Fingerprint, length: UInt32 = 65536) -> BlockUpload {
        BlockUpload(offset: offset, length: length, content: .token(token))
    }

    static func zeros(_ offset: UInt64, _ length: UInt32) -> BlockUpload {
        BlockUpload(offset: offset, length: length, content: .zeros)
    }

    static func hole(_ offset: UInt64, _ length: UInt32) -> BlockUpload {
        BlockUpload(offset: offset, length: length, content: .hole)
    }
}

extension [UInt8] {
    var slice: BufferSlice { Buffer(copying: self).slice }
    func checksum(_ algorithm: ChecksumAlgorithm) -> Checksum { withUnsafeBytes { Checksum(algorithm, of: $0) } }
    /// Of a whole chunk of 64 KiB.
    var token: Fingerprint { Fingerprint(bytes: Content.token(self))! }
    /// Of a snapshot in chunks of 64 KiB.
    var seal: Fingerprint { Fingerprint(bytes: Content.seal(self, chunkSize: 65536))! }
}

extension Range<UInt64> {
    var block: BlockRange { BlockRange(offset: lowerBound, length: upperBound - lowerBound) }
}
