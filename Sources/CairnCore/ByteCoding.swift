/// Writes fixed-width little-endian fields, one after the other: how everything on disk is encoded.
///
/// Inlinable, as all that is generic here and used for each call: what another module cannot see into looks up its types at run time,
/// which takes longer than the work.
public struct ByteWriter: Sendable {
    @usableFromInline internal var storage: [UInt8] = []
    @inlinable public var bytes: [UInt8] { storage }
    @inlinable public init(capacity: Int = 0) { storage.reserveCapacity(capacity) }

    @inlinable public mutating func put<T: FixedWidthInteger>(_ value: T) {
        withUnsafeBytes(of: value.littleEndian) { storage.append(contentsOf: $0) }
    }
    @inlinable public mutating func put(bytes more: some Sequence<UInt8>) { storage.append(contentsOf: more) }
    /// A 32-bit length, then the bytes.
    @inlinable public mutating func put(lengthAnd more: some Collection<UInt8>) {
        put(UInt32(more.count))
        storage.append(contentsOf: more)
    }
    @inlinable public mutating func put(_ text: String) { put(lengthAnd: Array(text.utf8)) }
    @inlinable public mutating func put(_ fingerprint: Fingerprint) { storage.append(contentsOf: fingerprint.bytes) }
}

/// Reads what a ``ByteWriter`` wrote. After a read beyond the end every further read gives nil.
public struct ByteReader {
    @usableFromInline internal let source: UnsafeRawBufferPointer
    @usableFromInline internal var position = 0

    /// `source` must outlive the reader.
    @inlinable public init(_ source: UnsafeRawBufferPointer) { self.source = source }

    @inlinable public var remaining: Int { source.count - position }
    @inlinable public var isAtEnd: Bool { remaining == 0 }

    @inlinable public mutating func take<T: FixedWidthInteger>(_: T.Type = T.self) -> T? {
        guard let raw = take(raw: MemoryLayout<T>.size) else { return nil }
        return T(littleEndian: raw.loadUnaligned(as: T.self))
    }
    /// `count` bytes of the source, not copied.
    @inlinable public mutating func take(raw count: Int) -> UnsafeRawBufferPointer? {
        guard count >= 0, count <= remaining else {
            position = source.count
            return nil
        }
        defer { position += count }
        return UnsafeRawBufferPointer(rebasing: source[position..<position + count])
    }
    @inlinable public mutating func take(bytes count: Int) -> [UInt8]? { take(raw: count).map(Array.init) }
    @inlinable public mutating func takeLengthAndBytes() -> [UInt8]? {
        guard let count = take(UInt32.self) else { return nil }
        return take(bytes: Int(count))
    }
    /// Nil where the bytes are no UTF-8.
    @inlinable public mutating func takeText() -> String? {
        takeLengthAndBytes().flatMap { String(validating: $0, as: UTF8.self) }
    }
    @inlinable public mutating func takeFingerprint() -> Fingerprint? {
        take(raw: Fingerprint.byteCount).map(Fingerprint.init)
    }
}
