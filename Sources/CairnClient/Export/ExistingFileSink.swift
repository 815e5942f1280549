internal import CairnCore

#if canImport(Glibc)
    internal import Glibc
#endif

/// A file that exists already, made equal in place: what it holds is hashed first, and only what differs is fetched and
/// written (SPEC A4). Interrupted, it holds some of the old and some of the new; another run goes on from there.
final class ExistingFileSink: ExportSink {
    let name: String
    let isOrdered = false
    private let size: UInt64
    private let writer: RandomWriter

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

    func mayHold(_ range: Range<UInt64>) throws(ClientError) -> Bool {
        do throws(SystemError) {
            return try writer.file.data(from: range.lowerBound, size: range.upperBound) != nil
        } catch {
            throw error.target(name)
        }
    }

    func read(at offset: UInt64, into target: UnsafeMutableRawBufferPointer) throws(ClientError) -> Int {
        try writer.read(at: offset, into: target)
    }

    func write(at offset: UInt64, _ bytes: UnsafeRawBufferPointer, goOn: () -> Bool) throws(ClientError) {
        try writer.write(at: offset, bytes)
    }

    func zero(_ range: Range<UInt64>, goOn: () -> Bool) throws(ClientError) {
        guard try mayHold(range) else { return }
        try writer.zero(range, goOn: goOn)
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
