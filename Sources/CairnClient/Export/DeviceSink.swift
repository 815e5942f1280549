internal import CairnCore

#if canImport(Glibc)
    internal import Glibc
#endif

/// A block device, written in place. What it holds already, from an interrupted export for instance, is compared first, so that
/// only what differs is fetched and written. What lies beyond the image is left alone.
final class DeviceSink: RandomAccessSink {
    let name: String
    let writer: RandomWriter

    /// - Throws: `target`, with EBUSY where the device is mounted or otherwise in use, with ENOSPC where it is too small.
    init(_ path: String, size: UInt64) throws(ClientError) {
        name = path
        do throws(SystemError) {
            // O_EXCL on a block device: not while it is mounted.
            let file = try OpenFile.open(path, OpenFile.readWrite | O_EXCL)
            guard try file.size() >= size else {
                throw SystemError(errno: ENOSPC, operation: "the device is too small")
            }
            writer = RandomWriter(file, path: path, name: path)
        } catch {
            throw error.target(path)
        }
    }

    func mayHold(_ range: Range<UInt64>) -> Bool { true }

    func finish() throws(ClientError) {
        do throws(SystemError) { try writer.file.synchronize() } catch { throw error.target(name) }
    }
}
