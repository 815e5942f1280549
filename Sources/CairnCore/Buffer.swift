import Synchronization

#if canImport(Glibc)
    internal import Glibc
#endif

/// A block of page-aligned memory, lent by a ``BufferPool`` and given back when its last reference goes.
///
/// Page faults are dear where Cairn runs (DESIGN §5), so memory is touched once and then goes around.
// Safety: whoever fills a buffer is its only holder; once it is shared, nobody writes to it.
public final class Buffer: @unchecked Sendable {
    /// All of the memory: at least as long as was asked for.
    public let memory: UnsafeMutableRawBufferPointer
    /// How many bytes hold content; set by whoever fills the buffer.
    public var count: Int
    private let pool: BufferPool?

    fileprivate init(memory: UnsafeMutableRawBufferPointer, count: Int, pool: BufferPool?) {
        self.memory = memory
        self.count = count
        self.pool = pool
    }

    /// A buffer of its own with a copy of `bytes`, outside any pool.
    public convenience init(copying bytes: some Collection<UInt8>) {
        let memory = BufferPool.allocate(max(bytes.count, 1))
        // In one piece where it lies so: byte by byte is a hundred times slower where nothing is optimized.
        let isCopied: Void? = bytes.withContiguousStorageIfAvailable {
            memory.copyMemory(from: UnsafeRawBufferPointer($0))
        }
        if isCopied == nil { _ = memory.initializeMemory(as: UInt8.self, from: bytes) }
        self.init(memory: memory, count: bytes.count, pool: nil)
    }

    deinit {
        if let pool { pool.take(back: memory) } else { free(memory.baseAddress) }
    }

    /// The content.
    public var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(rebasing: memory[0..<count]) }
    /// The content as a slice, for ``BufferSlice``'s users.
    public var slice: BufferSlice { BufferSlice(buffer: self, range: 0..<count) }
}

/// A part of a buffer that keeps the buffer alive.
public struct BufferSlice: Sendable {
    public let buffer: Buffer
    public let range: Range<Int>
    public init(buffer: Buffer, range: Range<Int>) {
        precondition(range.lowerBound >= 0 && range.upperBound <= buffer.memory.count)
        self.buffer = buffer
        self.range = range
    }
    public var count: Int { range.count }
    /// Valid while this slice, or its buffer, is.
    public var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(rebasing: buffer.memory[range]) }
    /// A part of this slice, counted from its start.
    public func part(_ part: Range<Int>) -> BufferSlice {
        BufferSlice(buffer: buffer, range: range.lowerBound + part.lowerBound..<range.lowerBound + part.upperBound)
    }
}

/// Lends buffers in power-of-two sizes from 4 KiB, and keeps a bounded number of returned bytes for the next to ask.
public final class BufferPool: Sendable {
    private struct Shelf {
        var free: [[UnsafeMutableRawPointer]] = Array(repeating: [], count: 48)
        var keptBytes = 0
    }
    // Safety: the pointers are only ever handed out once; the mutex guards the lists.
    private struct Shelves: @unchecked Sendable { var shelf = Shelf() }
    private let shelves = Mutex(Shelves())
    private let keepBytes: Int

    /// The pool of this process: keeps at most 64 MiB that nobody uses.
    public static let shared = BufferPool(keepBytes: 64 << 20)

    /// - Parameter keepBytes: the most bytes to keep that nobody uses.
    public init(keepBytes: Int) { self.keepBytes = keepBytes }

    deinit {
        shelves.withLock { for list in $0.shelf.free { for pointer in list { free(pointer) } } }
    }

    /// A page-aligned buffer of at least `capacity` bytes, its content undefined, `count` 0.
    public func buffer(capacity: Int) -> Buffer {
        let exponent = BufferPool.exponent(for: capacity)
        let kept = shelves.withLock { shelves -> UnsafeMutableRawPointer? in
            guard let pointer = shelves.shelf.free[exponent].popLast() else { return nil }
            shelves.shelf.keptBytes -= 1 << exponent
            return pointer
        }
        let memory = kept.map { UnsafeMutableRawBufferPointer(start: $0, count: 1 << exponent) }
        return Buffer(memory: memory ?? BufferPool.allocate(1 << exponent), count: 0, pool: self)
    }

    fileprivate func take(back memory: UnsafeMutableRawBufferPointer) {
        // Safety: the buffer that owned this pointer is gone.
        nonisolated(unsafe) let pointer = memory.baseAddress!
        let keep = shelves.withLock { shelves -> Bool in
            guard shelves.shelf.keptBytes + memory.count <= keepBytes else { return false }
            shelves.shelf.free[BufferPool.exponent(for: memory.count)].append(pointer)
            shelves.shelf.keptBytes += memory.count
            return true
        }
        if !keep { free(pointer) }
    }

    private static func exponent(for capacity: Int) -> Int {
        max(12, Int.bitWidth - (max(capacity, 1) - 1).leadingZeroBitCount)
    }

    fileprivate static func allocate(_ count: Int) -> UnsafeMutableRawBufferPointer {
        var pointer: UnsafeMutableRawPointer?
        guard posix_memalign(&pointer, 4096, count) == 0, let pointer else {
            fatalError("out of memory: \(count) bytes")
        }
        return UnsafeMutableRawBufferPointer(start: pointer, count: count)
    }
}
