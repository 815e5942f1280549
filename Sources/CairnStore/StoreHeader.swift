import CairnCore
import Foundation

/// The file `cairn.store`: 42 bytes, little-endian.
///
///      0   8  magic "CAIRNSTO"
///      8   4  format version: 1
///     12  16  the store's ID
///     28   2  shards
///     30   8  bytes of a segment
///     38   4  CRC32C of the bytes before
struct StoreHeader: Equatable {
    static let formatVersion: UInt32 = 1
    private static let magic = Array("CAIRNSTO".utf8)
    private static let byteCount = 42

    let id: UUID128
    let shardCount: UInt16
    let segmentBytes: UInt64

    var encoded: [UInt8] {
        var writer = ByteWriter(capacity: Self.byteCount)
        writer.put(bytes: Self.magic)
        writer.put(Self.formatVersion)
        writer.put(bytes: id.bytes)
        writer.put(shardCount)
        writer.put(segmentBytes)
        writer.put(writer.bytes.withUnsafeBytes { CRC32C.extend(0, $0) })
        return writer.bytes
    }

    /// - Throws: `.notAStore`, `.newerFormat`, `.damaged`.
    static func decode(_ bytes: [UInt8], _ path: String) throws(StoreError) -> StoreHeader {
        let result = bytes.withUnsafeBytes { raw -> Result<StoreHeader, StoreError> in
            var reader = ByteReader(raw)
            guard reader.take(bytes: magic.count) == magic, let version = reader.take(UInt32.self) else {
                return .failure(StoreError(.notAStore, "\(path) is no store of Cairn"))
            }
            // Before the checksum: a newer format may place it elsewhere.
            guard version <= formatVersion else {
                return .failure(
                    StoreError(
                        .newerFormat,
                        "\(path) has format version \(version); this server knows \(formatVersion)"
                    )
                )
            }
            guard raw.count == byteCount, let id = reader.take(bytes: 16).flatMap({ UUID128(bytes: $0) }),
                let shards = reader.take(UInt16.self), (1...256).contains(shards),
                let segment = reader.take(UInt64.self),
                reader.take(UInt32.self) == CRC32C.extend(0, UnsafeRawBufferPointer(rebasing: raw[0..<byteCount - 4]))
            else { return .failure(StoreError(.damaged, "\(path) is damaged")) }
            return .success(StoreHeader(id: id, shardCount: shards, segmentBytes: segment))
        }
        return try result.get()
    }

    /// - Throws: `.notAStore` where there is no such file; `.io` where it cannot be read, which says nothing about the store; as
    ///   ``decode(_:_:)``.
    static func read(from folder: String) throws(StoreError) -> StoreHeader {
        let path = folder + "/cairn.store"
        let descriptor = uninterrupted { open(path, O_RDONLY | O_CLOEXEC) }
        guard descriptor >= 0 else {
            if errno == ENOENT || errno == ENOTDIR {
                throw StoreError(.notAStore, "\(folder) holds no store: make one with `cairnd init`")
            }
            throw StoreError(.io, "cannot open \(path): \(String(cString: strerror(errno)))")
        }
        defer { close(descriptor) }
        // More than a header has, so that one that is too long shows.
        var bytes = [UInt8](repeating: 0, count: byteCount * 2)
        var found = 0
        while found < bytes.count {
            let count = bytes.withUnsafeMutableBytes { raw in
                uninterrupted { pread(descriptor, raw.baseAddress! + found, raw.count - found, off_t(found)) }
            }
            guard count >= 0 else {
                throw StoreError(.io, "cannot read \(path): \(String(cString: strerror(errno)))")
            }
            guard count > 0 else { break }
            found += count
        }
        return try decode(Array(bytes.prefix(found)), path)
    }

    /// Durable on return.
    func write(to folder: String) throws(StoreError) {
        let temporary = folder + "/cairn.store.new"
        let path = folder + "/cairn.store"
        guard FileManager.default.createFile(atPath: temporary, contents: Data(encoded)), Self.sync(temporary),
            rename(temporary, path) == 0, Self.sync(folder)
        else { throw StoreError(.io, "cannot write \(path): errno \(errno)") }
    }

    private static func sync(_ path: String) -> Bool {
        let descriptor = uninterrupted { open(path, O_RDONLY | O_CLOEXEC) }
        guard descriptor >= 0 else { return false }
        defer { close(descriptor) }
        return fsync(descriptor) == 0
    }
}
