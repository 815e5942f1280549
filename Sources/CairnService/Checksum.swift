import CairnCore
import CairnCrypto
import CairnWire

/// The checksums of SPEC U4, as the wire carries them.
enum Checksum {
    static func value(_ algorithm: Wire.ChecksumAlgorithm, over bytes: UnsafeRawBufferPointer) -> [UInt8] {
        switch algorithm {
        case .crc32: encode(CRC32.extend(0, bytes))
        case .md5: MD5.hash(bytes)
        case .sha256: SHA256.hash(bytes).bytes
        default: encode(CRC32C.extend(0, bytes))
        }
    }

    /// A checksum's four bytes, little-endian.
    static func encode(_ value: UInt32) -> [UInt8] { withUnsafeBytes(of: value.littleEndian, Array.init) }
}
