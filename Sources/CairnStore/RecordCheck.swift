import CairnCore
import CairnCrypto
import CairnLog
import Glibc

/// A part of a chunk that has a record.
struct StoredPart {
    let place: PatchedPlace
    /// Bytes from the chunk's start.
    let start: UInt32
    let location: RecordLocation

    /// Nil of zeros, which have none.
    init?(_ part: Patch, of place: PatchedPlace) {
        guard let location = part.location else { return nil }
        (self.place, start, self.location) = (place, part.start, location)
    }
}

/// Reads a record that the index names, and says whether it is whole and the one that is meant: header, checksums, LZ4,
/// fingerprint. Blocks.
struct RecordCheck {
    let log: SegmentLog

    /// What is wrong with the record of a chunk; nil where nothing is.
    /// - Throws: `.io` where that cannot be told, for something else than the data failed.
    func cause(_ key: ChunkKey, _ chunk: ChunkRecord) throws(StoreError) -> DamageCause? {
        switch try read(chunk.location) {
        case .failure(let cause): return cause
        case .success(let record): return Self.cause(key, chunk, record)
        }
    }

    /// What is wrong with the record of a part; nil where nothing is.
    /// - Throws: as above.
    func cause(_ part: StoredPart) throws(StoreError) -> DamageCause? {
        switch try read(part.location) {
        case .failure(let cause): return cause
        case .success(let record): return Self.cause(part, record)
        }
    }

    private func read(_ location: RecordLocation) throws(StoreError) -> Result<Record, DamageCause> {
        do throws(LogError) { return .success(try log.read(location)) } catch {
            switch error {
            // Whether it was recycled in good order the index tells: who asks looks there again.
            case .damaged, .recycled: return .failure(.checksum)
            case .io(let failure) where failure.code == EIO: return .failure(.unreadable)
            default: throw StoreError(error)
            }
        }
    }

    static func cause(_ key: ChunkKey, _ chunk: ChunkRecord, _ record: Record) -> DamageCause? {
        guard case .chunk(let header) = record.header, header.fingerprint == key.fingerprint,
            header.account == key.account.rawValue, header.owner == key.owner.rawValue
        else { return .foreign }
        let length = Int(chunk.rawLength)
        guard header.codec == chunk.codec, header.rawLength == chunk.rawLength,
            header.rawChecksum == chunk.rawChecksum, length <= chunk.chunkSize.bytes
        else { return .content }
        var raw = record.bytes
        if chunk.codec == .lz4 {
            let buffer = BufferPool.shared.buffer(capacity: max(length, 1))
            buffer.count = length
            let target = UnsafeMutableRawBufferPointer(rebasing: buffer.memory[0..<length])
            guard LZ4.decompress(raw.bytes, into: target) else { return .content }
            raw = buffer.slice
        }
        return withExtendedLifetime(raw) {
            raw.count == length && CRC32C.extend(0, raw.bytes) == chunk.rawChecksum
                && SHA256.hash(raw.bytes, padding: chunk.chunkSize.bytes - length) == key.fingerprint
                ? nil : .content
        }
    }

    static func cause(_ part: StoredPart, _ record: Record) -> DamageCause? {
        guard case .patch(let header) = record.header, header.lineage == part.place.lineage.rawValue,
            header.version == part.place.version, header.chunk == part.place.chunk, header.start == part.start
        else { return .foreign }
        return withExtendedLifetime(record.bytes) {
            CRC32C.extend(0, record.bytes.bytes) == header.rawChecksum ? nil : .content
        }
    }
}

extension DamageCause: Error {}
