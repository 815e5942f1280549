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
