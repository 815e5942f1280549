import CairnCore
import CairnWire

/// A block to upload, and its bytes.
struct Upload: Sendable {
    var block: Wire.UploadBlock
    var bytes: [UInt8] = []

    static func plain(_ offset: UInt64, _ bytes: [UInt8], checksum: Wire.Checksum? = nil) -> Upload {
        Upload(
            block: Wire.UploadBlock(
                offset: offset,
                length: UInt32(bytes.count),
                checksum: checksum ?? Content.crc32c(bytes),
                codec: .plain,
                source: .payloadLength(UInt32(bytes.count))
            ),
            bytes: bytes
        )
    }

    /// - Parameter packed: sent instead of what `bytes` compresses to.
    static func lz4(_ offset: UInt64, _ bytes: [UInt8], packed: [UInt8]? = nil) -> Upload {
        let packed = packed ?? Content.lz4(bytes)
        return Upload(
            block: Wire.UploadBlock(
                offset: offset,
                length: UInt32(bytes.count),
                checksum: Content.crc32c(bytes),
                codec: .lz4,
                source: .payloadLength(UInt32(packed.count))
            ),
            bytes: packed
        )
    }

    static func token(_ offset: UInt64, _ token: [UInt8], length: UInt32 = 65536) -> Upload {
        Upload(block: Wire.UploadBlock(offset: offset, length: length, source: .token(token)))
    }

    static func zeros(_ offset: UInt64, _ length: UInt32) -> Upload {
        Upload(block: Wire.UploadBlock(offset: offset, length: length, source: .zeros(Wire.Empty())))
    }

    static func hole(_ offset: UInt64, _ length: UInt32) -> Upload {
        Upload(block: Wire.UploadBlock(offset: offset, length: length, source: .hole(Wire.Empty())))
    }
}

extension [Upload] {
    /// All their bytes, in order. (`flatMap` goes byte by byte where nothing is optimized.)
    var payload: [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(reduce(0) { $0 + $1.bytes.count })
        for upload in self { bytes.append(contentsOf: upload.bytes) }
        return bytes
    }
}

/// What a range holds, as an answer told it.
struct Downloaded: Sendable {
    let blocks: [Wire.DownloadedBlock]
    /// All bytes of the ranges in order; holes and zeros are zeros.
    let bytes: [UInt8]
}

extension Caller {
    /// A volume of 1 MiB unless told otherwise.
    func createVolume(
        size: UInt64 = 1 << 20,
        chunkSize: UInt32 = 65536,
        from snapshot: [UInt8] = [],
        affinity: [UInt8] = [],
        tags: [Wire.Tag] = [],
        key: [UInt8] = []
    ) async throws -> Wire.CreateVolumeResponse {
        try await call(
            Wire.CreateVolumeRequest(
                size: size,
                snapshotID: snapshot,
                chunkSize: chunkSize,
                kind: .remote,
                affinity: affinity,
                tags: tags,
                idempotencyKey: key
            )
        ).message
    }

    @discardableResult
    func upload(
        _ volume: [UInt8],
        _ uploads: [Upload],
        dataVersion: UInt64 = 0,
        durability: Wire.Durability = .durable
    ) async throws -> Wire.UploadBlockResponse {
        try await call(
            Wire.UploadBlockRequest(
                target: .init(target: .volumeID(volume)),
                dataVersion: dataVersion,
                durability: durability,
                blocks: uploads.map(\.block)
            ),
            payload: uploads.payload
        ).message
    }

    @discardableResult
    func upload(_ volume: [UInt8], _ uploads: Upload...) async throws -> Wire.UploadBlockResponse {
        try await upload(volume, uploads)
    }

    func createSnapshot(_ volume: [UInt8], key: [UInt8] = []) async throws -> Wire.CreateSnapshotResponse {
        try await call(Wire.CreateSnapshotRequest(volumeID: volume, idempotencyKey: key)).message
    }

    func describeSnapshot(_ id: [UInt8]) async throws -> Wire.SnapshotDescription {
        try await call(Wire.DescribeSnapshotRequest(target: .snapshotID(id))).message.snapshot!
    }

    func describeVolume(_ id: [UInt8]) async throws -> Wire.VolumeDescription {
        try await call(Wire.DescribeVolumeRequest(volumeID: id)).message.volume!
    }

    /// The seal, once it is computed (SPEC S6).
    func seal(_ snapshot: [UInt8]) async throws -> [UInt8] {
        var value: [UInt8] = []
        try await eventually("the seal is computed") {
            guard let seal = try await describeSnapshot(snapshot).seal, !seal.pending else { return false }
            value = seal.value
            return true
        }
        return value
    }

    /// Reads ranges, and checks what comes back: the cover, the lengths, the checksums, the tokens.
    func download(
        _ target: Wire.Target.Target,
        _ ranges: [Range<UInt64>],
        codecs: [Wire.Codec] = [.lz4],
        known: [[UInt8]] = [],
        algorithm: Wire.ChecksumAlgorithm = .unspecified
    ) async throws -> Downloaded {
        let reply = try await call(
            Wire.DownloadBlockRequest(
                target: .init(target: target),
                ranges: ranges.map { .init(offset: $0.lowerBound, length: UInt64($0.count)) },
                acceptedCodecs: codecs,
                knownTokens: known,
                checksumAlgorithm: algorithm
            )
        )
        return try Downloaded(reply, ranges)
    }

    func download(_ volume: [UInt8], _ range: Range<UInt64>) async throws -> [UInt8] {
        try await download(.volumeID(volume), [range]).bytes
    }

    func download(snapshot: [UInt8], _ range: Range<UInt64>) async throws -> [UInt8] {
        try await download(.snapshotID(snapshot), [range]).bytes
    }

    func blocks(_ target: Wire.Target.Target, pages: UInt32 = 0) async throws -> [Wire.BlockDescription] {
        var found: [Wire.BlockDescription] = []
        var token: [UInt8] = []
        repeat {
            let page = try await call(
                Wire.ListBlocksRequest(target: .init(target: target), page: .init(limit: pages, pageToken: token))
            ).message
            found += page.blocks
            token = page.nextPageToken
        } while !token.isEmpty
        return found
    }
}

extension Downloaded {
    init(_ reply: Caller.Reply<Wire.DownloadBlockResponse>, _ ranges: [Range<UInt64>]) throws {
        var bytes: [UInt8] = []
        var payload = reply.payload[...]
        var position = ranges[0].lowerBound
        var remaining = ranges[...]
        for block in reply.message.blocks {
            while let range = remaining.first, position == range.upperBound {
                remaining = remaining.dropFirst()
                position = remaining.first?.lowerBound ?? 0
            }
            guard block.offset == position, let range = remaining.first,
                position + UInt64(block.length) <= range.upperBound
            else { throw HarnessError("the blocks do not cover the ranges at \(block.offset)") }
            switch block.content {
            case .payloadLength(let count):
                let stored = Array(payload.prefix(Int(count)))
                payload = payload.dropFirst(Int(count))
                let raw = try Self.decode(stored, block)
                try Self.check(raw, block)
                bytes += raw
            case .hole, .zeros: bytes += [UInt8](repeating: 0, count: Int(block.length))
            case .known: bytes += [UInt8](repeating: 0, count: Int(block.length))
            case nil: throw HarnessError("a block without content")
            }
            position += UInt64(block.length)
        }
        guard payload.isEmpty, bytes.count == ranges.reduce(0, { $0 + $1.count }) else {
            throw HarnessError("the blocks do not cover the ranges")
        }
        self.bytes = bytes
        blocks = reply.message.blocks
    }

    private static func decode(_ stored: [UInt8], _ block: Wire.DownloadedBlock) throws -> [UInt8] {
        guard block.codec == .lz4 else { return stored }
        var raw = [UInt8](repeating: 0, count: Int(block.length))
        let isWhole = stored.withUnsafeBytes { source in raw.withUnsafeMutableBytes { LZ4.decompress(source, into: $0) }
        }
        guard isWhole else { throw HarnessError("LZ4 does not decode") }
        return raw
    }

    private static func check(_ raw: [UInt8], _ block: Wire.DownloadedBlock) throws {
        guard raw.count == Int(block.length), let checksum = block.checksum else { throw HarnessError("no checksum") }
        if checksum.algorithm == .crc32c, checksum != Content.crc32c(raw) { throw HarnessError("a wrong checksum") }
    }
}
