internal import CairnCore

#if canImport(Glibc)
    internal import Glibc
#endif

/// Standard output or a pipe: everything in order, zeros included.
final class StreamSink: ExportSink {
    let name: String
    let isOrdered = true
    private let file: OpenFile

    /// A named pipe or a character device.
    init(_ path: String) throws(ClientError) {
        name = path
        do throws(SystemError) { file = try OpenFile.open(path, O_WRONLY) } catch { throw error.target(path) }
    }

    private init() {
        name = "standard output"
        file = OpenFile(descriptor: 1, closes: false)
    }

    static func standardOutput() -> StreamSink { StreamSink() }

    func mayHold(_ range: Range<UInt64>) -> Bool { false }

    func read(at offset: UInt64, into target: UnsafeMutableRawBufferPointer) -> Int { 0 }

    func write(at offset: UInt64, _ bytes: UnsafeRawBufferPointer, goOn: () -> Bool) throws(ClientError) {
        var done = 0
        while done < bytes.count {
            guard goOn() else { throw .cancelled }
            do throws(SystemError) {
                // No more than a pipe holds at a time, so that a cancel is noticed.
                let part = UnsafeRawBufferPointer(rebasing: bytes[done..<min(done + 64 << 10, bytes.count)])
                done += try file.writeStream(part, within: 200)
            } catch {
                throw error.target(name)
            }
        }
    }

    func zero(_ range: Range<UInt64>, goOn: () -> Bool) throws(ClientError) {
        for offset in ZeroBlock.parts(of: range) {
            try write(at: offset, ZeroBlock.bytes(range.upperBound - offset), goOn: goOn)
        }
    }

    func finish() {}
}
