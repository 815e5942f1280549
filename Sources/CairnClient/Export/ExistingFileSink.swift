internal import CairnCore

#if canImport(Glibc)
    internal import Glibc
#endif

/// A file that exists already, made equal in place: what it holds is hashed first, and only what differs is fetched and
/// written (SPEC A4). Interrupted, it holds some of the old and some of the new; another run goes on from there.
final class ExistingFileSink: SparseFileSink {
    let name: String
    private let size: UInt64
    let writer: RandomWriter

    /// - Throws: `target`, with ENOENT where there is no such file, with EBUSY where another export writes to it.
    init(_ path: String, size: UInt64) throws(ClientError) {
        name = path
        self.size = size
        do throws(SystemError) {
            let file = try OpenFile.open(path, OpenFile.readWrite)
            guard try file.lock() else { throw SystemError(errno: EBUSY, operation: "lock") }
            if try file.size() < size { try file.setSize(size) }
            writer = RandomWriter(file, path: path, name: path)
        } catch {
            throw error.target(path)
        }
    }

    func finish() throws(ClientError) {
        do throws(SystemError) {
            // What lay beyond the image is not part of it.
            if try writer.file.size() > size { try writer.file.setSize(size) }
            try writer.file.synchronize()
        } catch {
            throw error.target(name)
        }
    }
}
