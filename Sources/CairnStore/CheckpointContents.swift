import CairnCore
import CairnLog

/// The file `contents` of a checkpoint, little-endian: what the copy consists of, and where in the log it stands.
///
///      0   8  magic "CAIRNCKP"
///      8   4  format version: 1
///     12  16  the store's ID
///     28   2  shard
///     30   8  LSN           ┐
///     38   8  epoch         │ the index's position
///     46   4  segment       │
///     50   4  offset        ┘
///     54   8  bytes of log up to there since the shard was made
///     62   8  made, ms since 1970
///     70   …  RocksDB's own identity of the index: text
///          4  files; of each: name (text), bytes u64, CRC32C u32
///          4  CRC32C of all bytes before
struct CheckpointContents: Hashable, Sendable {
    struct File: Hashable, Sendable {
        let name: String
        let bytes: UInt64
        let checksum: UInt32
    }

    static let formatVersion: UInt32 = 1
    static let magic = Array("CAIRNCKP".utf8)
    /// Of a `contents` file: some hundred thousand files.
    static let byteLimit = 32 << 20

    let identity: LogIdentity
    let position: LogPosition
    let logBytes: UInt64
    let madeAt: UInt64
    let database: String
    var files: [File]

    var bytes: UInt64 { files.reduce(0) { $0 + $1.bytes } }

    var encoded: [UInt8] {
        var writer = ByteWriter(capacity: 128 + files.count * 40)
        writer.put(bytes: Self.magic)
        writer.put(Self.formatVersion)
        writer.put(bytes: identity.store.bytes)
        writer.put(identity.shard.rawValue)
        position.write(to: &writer)
        writer.put(logBytes)
        writer.put(madeAt)
        writer.put(database)
        writer.put(UInt32(files.count))
        for file in files {
            writer.put(file.name)
            writer.put(file.bytes)
            writer.put(file.checksum)
        }
        writer.put(writer.bytes.withUnsafeBytes { CRC32C.extend(0, $0) })
        return writer.bytes
    }

    /// Nil where the bytes are damaged, or those of a newer version.
    static func decode(_ bytes: [UInt8]) -> CheckpointContents? {
        bytes.withUnsafeBytes { raw in
            guard raw.count > 4 else { return nil }
            var tail = ByteReader(UnsafeRawBufferPointer(rebasing: raw[(raw.count - 4)...]))
            let body = UnsafeRawBufferPointer(rebasing: raw[..<(raw.count - 4)])
            var reader = ByteReader(body)
            guard tail.take(UInt32.self) == CRC32C.extend(0, body), reader.take(bytes: magic.count) == magic,
                reader.take(UInt32.self) == formatVersion,
                let store = reader.take(bytes: 16).flatMap({ UUID128(bytes: $0) }),
                let shard = reader.take(UInt16.self), let position = LogPosition(&reader),
                let logBytes = reader.take(UInt64.self), let madeAt = reader.take(UInt64.self),
                let database = reader.takeText(), let count = reader.take(UInt32.self)
            else { return nil }
            var files: [File] = []
            for _ in 0..<count {
                guard let name = reader.takeText(), !name.contains("/"), let size = reader.take(UInt64.self),
                    let checksum = reader.take(UInt32.self)
                else { return nil }
                files.append(File(name: name, bytes: size, checksum: checksum))
            }
            guard reader.isAtEnd else { return nil }
            return CheckpointContents(
                identity: LogIdentity(store: store, shard: ShardIndex(shard)),
                position: position,
                logBytes: logBytes,
                madeAt: madeAt,
                database: database,
                files: files
            )
        }
    }
}

/// A copy of a shard's index, whole as far as its `contents` go.
struct Checkpoint: Hashable, Sendable {
    /// Rises with each that is made; its folder's name.
    let number: UInt32
    let contents: CheckpointContents
}
