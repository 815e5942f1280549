import CairnCore
import CairnLog
import Glibc

/// Room on the disk for a shard's index, which shares the file system with the log and with others.
///
/// The log leaves some of it free, but others may take that too. So a file of a few MiB, `index.reserve`, lies beside the index: it
/// is given up when there is no other room for a flush, and made again when there is. Where that is not enough, nothing is flushed:
/// a flush that fails fences the shard.
struct IndexRoom: Sendable {
    /// The reserve's size at the most.
    static let reserveBytes: UInt64 = 32 << 20
    /// What RocksDB writes beside tables: its manifest, its own log.
    static let fileBytes: UInt64 = 2 << 20

    private let folder: String
    /// What the log leaves free.
    let leave: UInt64
    private let reserve: UInt64

    /// - Parameters:
    ///   - folder: the shard's.
    ///   - leave: what the log leaves free; 0: others do not matter, and nothing is kept.
    ///   - shards: how many share the file system.
    init(folder: String, leave: UInt64, shards: Int) {
        self.folder = folder
        self.leave = leave
        reserve = min(Self.reserveBytes, leave / 4 / UInt64(shards)) / 4096 * 4096
    }

    private var path: String { folder + "/index.reserve" }

    /// Bytes that are free; all that can be named where the file system does not tell.
    var available: UInt64 { LocalSegmentStorage.space(folder)?.available ?? .max }

    /// Whether so little is left that what can wait should.
    var isShort: Bool { available < leave / 2 }

    /// Gives the reserve up where `bytes` are not free without it.
    /// - Throws: `.full` where they are not free with it either.
    func make(_ bytes: UInt64) throws(StoreError) {
        let wanted = bytes + Self.fileBytes
        if available >= wanted { return }
        unlink(path)
        guard available >= wanted else {
            throw StoreError(.full, "the disk has no room for the index: it needs \(ByteCount.text(wanted))")
        }
    }

    /// Makes the reserve where it is missing and the disk has room again. What does not work now will later.
    func restore() {
        guard reserve > 0, access(path, F_OK) != 0, available >= leave / 4 * 3 + reserve else { return }
        let temporary = path + ".new"
        let file = Glibc.open(temporary, O_WRONLY | O_CREAT | O_CLOEXEC, 0o600)
        guard file >= 0 else { return }
        let isMade = posix_fallocate(file, 0, off_t(reserve)) == 0
        Glibc.close(file)
        if !isMade || rename(temporary, path) != 0 { unlink(temporary) }
    }
}
