internal import CairnCore
internal import Synchronization

#if canImport(Glibc)
    internal import Glibc
#endif

/// Standard output or a pipe: everything in order, zeros included.
final class StreamSink: ExportSink {
    let name: String
    let isOrdered = true
    /// Nil until a pipe has a reader.
    private let file: Mutex<OpenFile?>

    /// A named pipe or a character device; it is opened when there is something to write.
    init(_ path: String) {
        name = path
        file = Mutex(nil)
    }

    private init() {
        name = "standard output"
        file = Mutex(OpenFile(descriptor: 1, closes: false))
    }

    static func standardOutput() -> StreamSink { StreamSink() }

    /// Opens a named pipe when somebody reads from it: waits for that, but not beyond a cancel.
    private func opened(goOn: () -> Bool) throws(ClientError) -> OpenFile {
        while true {
            if let file = file.withLock({ $0 }) { return file }
            guard goOn() else { throw .cancelled }
            do throws(SystemError) {
                let opened = try OpenFile.open(name, O_WRONLY | O_NONBLOCK)
                file.withLock { $0 = opened }
            } catch {
                // ENXIO: nobody reads yet.
                guard error.errno == ENXIO else { throw error.target(name) }
                usleep(20_000)
            }
        }
    }

    func mayHold(_ range: Range<UInt64>) -> Bool { false }

    func read(at offset: UInt64, into target: UnsafeMutableRawBufferPointer) -> Int { 0 }

    func write(at offset: UInt64, _ bytes: UnsafeRawBufferPointer, goOn: () -> Bool) throws(ClientError) {
        let file = try opened(goOn: goOn)
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
