internal import CairnCore

/// The layout of a record: header, stored bytes, zeros up to a multiple of 8.
///
/// | offset | size | field |
/// | 0 | 4 | CRC32C of the header from byte 4 and the stored bytes, from the segment's seed |
/// | 4 | 1 | type: 1 chunk, 2 patch, 3 commit |
/// | 5 | 1 | codec: 0 raw, 1 LZ4 |
/// | 6 | 2 | header length: 72, 64 or 32 |
/// | 8 | 4 | stored length |
/// | 12 | 4 | raw length |
/// | 16 | 4 | CRC32C of the raw bytes (commit: 0) |
/// | 20 | 4 | zeros |
/// | 24 | 8 | LSN of the group |
/// | 32 | 32 | chunk: fingerprint |
/// | 64 | 8 | chunk: account, owner |
/// | 32 | 32 | patch: lineage, chunk, version, start in the chunk (u32), zeros |
enum RecordFormat {
    enum Kind: UInt8 {
        case chunk = 1
        case patch = 2
        case commit = 3
    }

    /// A record's header, decoded.
    struct Decoded {
        /// Nil for a commit record.
        let header: RecordHeader?
        let headerLength: Int
        let storedLength: Int
        let checksum: UInt32
        let lsn: LSN
        /// With its header and the zeros after it.
        var alignedLength: Int { Format.align(headerLength + storedLength, to: 8) }
    }

    static func headerLength(_ header: RecordHeader?) -> Int {
        switch header {
        case .chunk: Format.chunkHeader
        case .patch: Format.patchHeader
        case nil: Format.recordHeader
        }
    }

    /// The header of a record whose stored bytes are `stored`; a commit record for nil.
    static func encode(_ header: RecordHeader?, lsn: LSN, stored: UnsafeRawBufferPointer, seed: UInt32) -> [UInt8] {
        let length = headerLength(header)
        var body = ByteWriter(capacity: length)
        let count = UInt32(stored.count)
        switch header {
        case .chunk(let chunk): body.put(.chunk, chunk.codec, length, count, chunk.rawLength, chunk.rawChecksum, lsn)
        case .patch(let patch): body.put(.patch, .raw, length, count, count, patch.rawChecksum, lsn)
        case nil: body.put(.commit, .raw, length, count, count, 0, lsn)
        }
        switch header {
        case .chunk(let chunk):
            body.put(chunk.fingerprint)
            body.put(chunk.account)
            body.put(chunk.owner)
        case .patch(let patch):
            body.put(patch.lineage)
            body.put(patch.chunk.rawValue)
            body.put(patch.version.rawValue)
            body.put(patch.start)
            body.put(UInt32(0))
        case nil: break
        }
        let sum = body.bytes.withUnsafeBytes { CRC32C.extend(seed, $0) }
        var writer = ByteWriter(capacity: length)
        // What is stored as it came is not read once more: so its checksum holds from where it was first computed to where it is
        // last read.
        writer.put(
            header?.storedChecksum.map { CRC32C.joined(sum, $0, count: stored.count) } ?? CRC32C.extend(sum, stored)
        )
        writer.put(bytes: body.bytes)
        return writer.bytes
    }

    /// Decodes what `bytes` begin with, or nil. Says nothing of the checksum: for that see ``isWhole(_:_:seed:)``.
    static func decode(_ bytes: UnsafeRawBufferPointer) -> Decoded? {
        var reader = ByteReader(bytes)
        guard let checksum = reader.take(UInt32.self), let kind = reader.take(UInt8.self).flatMap(Kind.init(rawValue:)),
            let codec = reader.take(UInt8.self).flatMap(Codec.init(rawValue:)), let length = reader.take(UInt16.self),
            let stored = reader.take(UInt32.self), let raw = reader.take(UInt32.self),
            let rawSum = reader.take(UInt32.self),
            reader.take(UInt32.self) == 0, let lsn = reader.take(UInt64.self)
        else { return nil }
        var header: RecordHeader?
        switch kind {
        case .chunk:
            guard let fingerprint = reader.takeFingerprint(), let account = reader.take(UInt32.self),
                let owner = reader.take(UInt32.self)
            else { return nil }
            header = .chunk(
                ChunkHeader(
                    account: account,
                    owner: owner,
                    fingerprint: fingerprint,
                    codec: codec,
                    rawLength: raw,
                    rawChecksum: rawSum
                )
            )
        case .patch:
            guard let lineage = reader.take(UInt64.self), let chunk = reader.take(UInt64.self),
                let version = reader.take(UInt64.self), let start = reader.take(UInt32.self)
            else { return nil }
            header = .patch(
                PatchHeader(
                    lineage: lineage,
                    chunk: ChunkIndex(chunk),
                    version: DataVersion(version),
                    start: start,
                    rawChecksum: rawSum
                )
            )
        case .commit: break
        }
        guard Int(length) == headerLength(header), bytes.count >= Int(length) else { return nil }
        return Decoded(
            header: header,
            headerLength: Int(length),
            storedLength: Int(stored),
            checksum: checksum,
            lsn: LSN(lsn)
        )
    }

    /// Whether the record that `bytes` begin with is all there and fits its checksum.
    static func isWhole(_ record: Decoded, _ bytes: UnsafeRawBufferPointer, seed: UInt32) -> Bool {
        let length = record.headerLength + record.storedLength
        guard length <= bytes.count else { return false }
        return CRC32C.extend(seed, UnsafeRawBufferPointer(rebasing: bytes[4..<length])) == record.checksum
    }
}

extension RecordHeader {
    /// The CRC32C of what is stored, where that is the raw bytes.
    fileprivate var storedChecksum: UInt32? {
        switch self {
        case .chunk(let chunk): chunk.codec == .raw ? chunk.rawChecksum : nil
        case .patch(let patch): patch.rawChecksum
        }
    }
}

extension ByteWriter {
    /// Bytes 4 ..< 32 of a record.
    fileprivate mutating func put(
        _ kind: RecordFormat.Kind,
        _ codec: Codec,
        _ headerLength: Int,
        _ stored: UInt32,
        _ raw: UInt32,
        _ rawChecksum: UInt32,
        _ lsn: LSN
    ) {
        put(kind.rawValue)
        put(codec.rawValue)
        put(UInt16(headerLength))
        put(stored)
        put(raw)
        put(rawChecksum)
        put(UInt32(0))
        put(lsn.rawValue)
    }
}
