internal import CairnCore

/// A sink that can be written at any place.
protocol RandomAccessSink: ExportSink {
    var writer: RandomWriter { get }
}

extension RandomAccessSink {
    var isOrdered: Bool { false }

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
}

/// One whose holes the file system knows.
protocol SparseFileSink: RandomAccessSink {}

extension SparseFileSink {
    func mayHold(_ range: Range<UInt64>) throws(ClientError) -> Bool {
        do throws(SystemError) {
            return try writer.file.data(from: range.lowerBound, size: range.upperBound) != nil
        } catch {
            throw error.target(writer.name)
        }
    }
}

/// Writes to a file or device at any place, past the page cache where it can: written data is not read again soon, and new
/// pages cost four times the processor that the write itself does (DESIGN §5).
final class RandomWriter: Sendable {
    /// For messages.
    let name: String
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
