internal import Glibc

/// Where segments are kept: local files, later objects of a Ceph pool. All calls block; any thread may call.
///
/// A segment has a fixed size from its creation. Writes are whole multiples of 4096 bytes at multiples of 4096, from memory
/// so aligned. Only the log writes, one call at a time; reads come from any thread at any time.
public protocol SegmentStorage: Sendable {
    /// Makes a segment of `size` bytes with its space allocated, its content undefined; its name is durable on return.
    /// Fails with ENOSPC or EDQUOT where there is no space, and leaves nothing behind.
    func create(_ segment: SegmentID, size: Int) throws(StorageError)
    /// Writes all of `bytes`; not durable before ``sync(_:)``.
    func write(_ segment: SegmentID, at offset: Int, _ bytes: UnsafeRawBufferPointer) throws(StorageError)
    /// Makes all writes to the segment durable. Must not be called again for the same writes once it has failed.
    func sync(_ segment: SegmentID) throws(StorageError)
    /// Reads into `target`, and returns how many bytes there were: fewer only at the segment's end. Whole blocks of 4096 bytes, into
    /// memory so aligned, may cost less.
    func read(_ segment: SegmentID, at offset: Int, into target: UnsafeMutableRawBufferPointer) throws(StorageError)
        -> Int
    /// As ``read(_:at:into:)``, of what is in memory: never waits for a disk or another machine, but fails with EAGAIN.
    func readCached(_ segment: SegmentID, at offset: Int, into target: UnsafeMutableRawBufferPointer)
        throws(StorageError) -> Int
    /// What is free for more segments and whatever else lies beside them, in bytes; nil where that is not known, or has no end.
    var availableBytes: UInt64? { get }
    /// Every segment there is, in no order.
    func list() throws(StorageError) -> [SegmentID]
    func delete(_ segment: SegmentID) throws(StorageError)
    /// Both slots of the superblock as they are, 4096 bytes each; empty where none was ever written.
    func readSuperblock() throws(StorageError) -> [UInt8]
    /// Overwrites one slot (0 or 1) with 4096 bytes; durable on return. Creates the superblock where there is none.
    func writeSuperblock(slot: Int, _ bytes: [UInt8]) throws(StorageError)
}

extension SegmentStorage {
    public var availableBytes: UInt64? { nil }
    /// An engine that cannot tell has nothing in memory.
    public func readCached(_ segment: SegmentID, at offset: Int, into target: UnsafeMutableRawBufferPointer)
        throws(StorageError) -> Int
    { throw StorageError(operation: .read, code: EAGAIN, segment: segment) }

    /// ``read(_:at:into:)`` for the log.
    /// - Throws: `.io`.
    func fill(_ target: UnsafeMutableRawBufferPointer, from segment: SegmentID, at offset: Int) throws(LogError) -> Int
    {
        do { return try read(segment, at: offset, into: target) } catch { throw .io(error) }
    }
}
