/// Writes fixed-width little-endian fields, one after the other: how everything on disk is encoded.
public struct ByteWriter: Sendable {
    public private(set) var bytes: [UInt8] = []
    public init(capacity: Int = 0) { bytes.reserveCapacity(capacity) }

    public mutating func put<T: FixedWidthInteger>(_ value: T) {
        withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
    }
    public mutating func put(bytes more: some Sequence<UInt8>) { bytes.append(contentsOf: more) }
    /// A 32-bit length, then the bytes.
    public mutating func put(lengthAnd more: some Collection<UInt8>) {
        put(UInt32(more.count))
        bytes.append(contentsOf: more)
    }
    public mutating func put(_ text: String) { put(lengthAnd: Array(text.utf8)) }
    public mutating func put(_ fingerprint: Fingerprint) { bytes.append(contentsOf: fingerprint.bytes) }
}

/// Reads what a ``ByteWriter`` wrote. After a read beyond the end every further read gives nil.
public struct ByteReader {
    private let source: UnsafeRawBufferPointer
    private var position = 0

    /// `source` must outlive the reader.
    public init(_ source: UnsafeRawBufferPointer) { self.source = source }

    public var remaining: Int { source.count - position }
    public var isAtEnd: Bool { remaining == 0 }

    public mutating func take<T: FixedWidthInteger>(_: T.Type = T.self) -> T? {
        guard let raw = take(raw: MemoryLayout<T>.size) else { return nil }
        return T(littleEndian: raw.loadUnaligned(as: T.self))
    }
    /// `count` bytes of the source, not copied.
    public mutating func take(raw count: Int) -> UnsafeRawBufferPointer? {
        guard count >= 0, count <= remaining else {
            position = source.count
            return nil
        }
        defer { position += count }
        return UnsafeRawBufferPointer(rebasing: source[position..<position + count])
    }
    public mutating func take(bytes count: Int) -> [UInt8]? { take(raw: count).map(Array.init) }
    public mutating func takeLengthAndBytes() -> [UInt8]? {
        guard let count = take(UInt32.self) else { return nil }
        return take(bytes: Int(count))
    }
    /// Nil where the bytes are no UTF-8.
    public mutating func takeText() -> String? {
        takeLengthAndBytes().flatMap { String(validating: $0, as: UTF8.self) }
    }
    public mutating func takeFingerprint() -> Fingerprint? { take(raw: Fingerprint.byteCount).map(Fingerprint.init) }
}
