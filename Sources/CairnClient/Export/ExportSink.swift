internal import CairnCore

/// Where an export goes. Called from several threads at once, but for ``finish()``, and never twice for the same range.
protocol ExportSink: AnyObject, Sendable {
    /// For messages.
    var name: String { get }
    /// Whether everything must be written from front to back, and nothing can be read back.
    var isOrdered: Bool { get }
    /// Whether a range may hold anything but zeros: from an earlier, interrupted export, or from before.
    func mayHold(_ range: Range<UInt64>) throws(ClientError) -> Bool
    /// Reads back what is there; fewer bytes at the end.
    func read(at offset: UInt64, into target: UnsafeMutableRawBufferPointer) throws(ClientError) -> Int
    func write(at offset: UInt64, _ bytes: UnsafeRawBufferPointer, goOn: () -> Bool) throws(ClientError)
    /// Makes a range read as zeros.
    func zero(_ range: Range<UInt64>, goOn: () -> Bool) throws(ClientError)
    /// Everything is written and right: makes it last, under its final name.
    func finish() throws(ClientError)
}

/// Zeros to write where a hole cannot be made.
enum ZeroBlock {
    static let buffer: Buffer = {
        let buffer = BufferPool.shared.buffer(capacity: 1 << 20)
        buffer.memory.initializeMemory(as: UInt8.self, repeating: 0)
        buffer.count = 1 << 20
        return buffer
    }()

    /// The parts of a range, each no longer than the zeros at hand.
    static func parts(of range: Range<UInt64>) -> StrideTo<UInt64> {
        stride(from: range.lowerBound, to: range.upperBound, by: 1 << 20)
    }
    static func bytes(_ count: UInt64) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(rebasing: buffer.bytes[0..<Int(min(count, 1 << 20))])
    }
}

/// Writes to a file or device at any place, past the page cache where it can: written data is not read again soon, and new
/// pages cost four times the processor that the write itself does (DESIGN §5).
final class RandomWriter: Sendable {
    private let name: String
    let file: OpenFile
    private let direct: OpenFile?
    private static let alignment = 4096

    init(_ file: OpenFile, path: String, name: String) {
        self.file = file
        self.name = name
        direct = try? OpenFile.open(path, OpenFile.readWrite | OpenFile.direct)
    }

    func write(at offset: UInt64, _ bytes: UnsafeRawBufferPointer) throws(ClientError) {
        do throws(SystemError) {
            let isAligned =
                Int(offset) % RandomWriter.alignment == 0
                && Int(bitPattern: bytes.baseAddress) % RandomWriter.alignment == 0
            let whole = bytes.count / RandomWriter.alignment * RandomWriter.alignment
            guard let direct, isAligned, whole > 0 else { return try file.write(at: offset, bytes) }
            try direct.write(at: offset, UnsafeRawBufferPointer(rebasing: bytes[..<whole]))
            try file.write(at: offset + UInt64(whole), UnsafeRawBufferPointer(rebasing: bytes[whole...]))
        } catch {
            throw error.target(name)
        }
    }

    /// In steps, so that a cancel need not wait for a whole disk.
    func zero(_ range: Range<UInt64>, goOn: () -> Bool) throws(ClientError) {
        let step: UInt64 = 256 << 20
        for start in stride(from: range.lowerBound, to: range.upperBound, by: Int(step)) {
            guard goOn() else { throw .cancelled }
            let part = start..<min(start + step, range.upperBound)
            do throws(SystemError) {
                if try file.punch(part) { continue }
            } catch {
                throw error.target(name)
            }
            for offset in ZeroBlock.parts(of: part) {
                guard goOn() else { throw .cancelled }
                try write(at: offset, ZeroBlock.bytes(part.upperBound - offset))
            }
        }
    }

    func read(at offset: UInt64, into target: UnsafeMutableRawBufferPointer) throws(ClientError) -> Int {
        do throws(SystemError) { return try file.read(at: offset, into: target) } catch { throw error.target(name) }
    }
}
