/// Segments as files of one folder.
public final class LocalSegmentStorage: SegmentStorage {
    public struct Options: Sendable {
        /// Write past the page cache where the file system can.
        public var direct = true
        /// Descriptors kept open for reading.
        public var readDescriptors = 128
        public init() {}
    }
    /// - Parameter path: the shard's folder; it, `segments/` in it, are made where missing.
    public init(path: String, options: Options = Options()) throws(StorageError) { fatalError() }
    public func create(_ segment: SegmentID, size: Int) throws(StorageError) { fatalError() }
    public func write(_ segment: SegmentID, at offset: Int, _ bytes: UnsafeRawBufferPointer) throws(StorageError) { fatalError() }
    public func sync(_ segment: SegmentID) throws(StorageError) { fatalError() }
    public func read(_ segment: SegmentID, at offset: Int, into target: UnsafeMutableRawBufferPointer) throws(StorageError) -> Int { fatalError() }
    public func list() throws(StorageError) -> [SegmentID] { fatalError() }
    public func delete(_ segment: SegmentID) throws(StorageError) { fatalError() }
    public func readSuperblock() throws(StorageError) -> [UInt8] { fatalError() }
    public func writeSuperblock(slot: Int, _ bytes: [UInt8]) throws(StorageError) { fatalError() }
}
