internal import CairnCore
internal import CairnCrypto
internal import CairnWire

/// How it is proven that a block's bytes arrive as they left (SPEC U4).
public enum ChecksumAlgorithm: Sendable, Hashable, CaseIterable {
    /// CRC-32C (Castagnoli): the cheapest, for the server keeps it with the bytes.
    case crc32c
    /// CRC-32, as zlib has it.
    case crc32
    case md5
    case sha256

    var wire: Wire.ChecksumAlgorithm {
        switch self {
        case .crc32c: .crc32c
        case .crc32: .crc32
        case .md5: .md5
        case .sha256: .sha256
        }
    }

    fileprivate func value(of bytes: UnsafeRawBufferPointer) -> [UInt8] {
        switch self {
        case .crc32c: withUnsafeBytes(of: CRC32C.extend(0, bytes).littleEndian, Array.init)
        case .crc32: withUnsafeBytes(of: CRC32.extend(0, bytes).littleEndian, Array.init)
        case .md5: MD5.hash(bytes)
        case .sha256: SHA256.hash(bytes).bytes
        }
    }
}

/// The checksum of a block's uncompressed bytes (SPEC U4).
public struct Checksum: Sendable, Hashable {
    public var algorithm: ChecksumAlgorithm
    /// 4 bytes, little-endian, of a CRC; 16 of MD5; 32 of SHA-256.
    public var value: [UInt8]

    /// One that was computed elsewhere.
    public init(_ algorithm: ChecksumAlgorithm, value: [UInt8]) {
        self.algorithm = algorithm
        self.value = value
    }

    /// Computes it.
    public init(_ algorithm: ChecksumAlgorithm, of bytes: UnsafeRawBufferPointer) {
        self.init(algorithm, value: algorithm.value(of: bytes))
    }

    var wire: Wire.Checksum { Wire.Checksum(algorithm: algorithm.wire, value: value) }
}
