#if canImport(Glibc)
    internal import Glibc
#endif

/// A new file: written as `NAME.cairn-partial` beside its place, locked against other exports, made to last, and only then
/// given its name. What an interrupted export left there is gone on with.
final class FileSink: SparseFileSink {
    static let partialSuffix = ".cairn-partial"

    let name: String
    private let partial: String
    private let size: UInt64
    private let replaces: Bool
    let writer: RandomWriter

    /// - Parameter replaces: whether a file of that name may be replaced.
    /// - Throws: `target` with EEXIST where the name is taken, with EBUSY where another export writes there.
    init(_ path: String, size: UInt64, replaces: Bool) throws(ClientError) {
        name = path
        partial = path + FileSink.partialSuffix
        self.size = size
        self.replaces = replaces
        if !replaces { try FileSink.requireAbsent(path) }
        do throws(SystemError) {
            let file = try FileSink.openLocked(partial)
            try file.setSize(size)
            writer = RandomWriter(file, path: partial, name: partial)
        } catch {
            guard error.errno == EBUSY else { throw error.target(partial) }
            throw ClientError(.target, "\(partial) is being written by another export", errno: EBUSY)
        }
    }

    private static func requireAbsent(_ path: String) throws(ClientError) {
        guard access(path, F_OK) != 0 else { throw ClientError(.target, "\(path) exists", errno: EEXIST) }
    }

    /// The file may have been given its final name by its former owner between our opening and locking it: then it is another's.
    private static func openLocked(_ path: String) throws(SystemError) -> OpenFile {
        for _ in 0..<100 {
            let file = try OpenFile.open(path, OpenFile.readWrite | OpenFile.create)
            guard try file.lock() else { throw SystemError(errno: EBUSY, operation: "lock") }
            let named = try? OpenFile.open(path, OpenFile.readOnly)
            if let named, try named.identity() == file.identity() { return file }
        }
        throw SystemError(errno: EBUSY, operation: "lock")
    }

    func finish() throws(ClientError) {
        do throws(SystemError) {
            try writer.file.synchronize()
            if !replaces { try FileSink.requireAbsentNow(name) }
            guard rename(partial, name) == 0 else { throw SystemError(errno: errno, operation: "rename") }
            let slash = name.lastIndex(of: "/")
            let folder = slash.map { $0 == name.startIndex ? "/" : String(name[..<$0]) } ?? "."
            try OpenFile.open(folder, OpenFile.readOnly).synchronize()
        } catch {
            throw error.target(name)
        }
    }

    private static func requireAbsentNow(_ path: String) throws(SystemError) {
        if access(path, F_OK) == 0 { throw SystemError(errno: EEXIST, operation: "rename") }
    }
}
