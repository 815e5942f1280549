internal import CCairnChecksum
internal import CZlib

/// CRC-32C (Castagnoli), as iSCSI, ext4 and Ceph use it. Hardware instructions where there are any.
public enum CRC32C {
    /// Extends `crc` (0 to begin) over `bytes`.
    public static func extend(_ crc: UInt32 = 0, _ bytes: UnsafeRawBufferPointer) -> UInt32 {
        cairn_crc32c(crc, bytes.baseAddress, bytes.count)
    }
    /// The CRC of some bytes followed by `count` others, of the CRCs of both: the others need not be read again.
    public static func joined(_ first: UInt32, _ second: UInt32, count: Int) -> UInt32 {
        cairn_crc32c_join(first, second, count)
    }
    static func portable(_ bytes: UnsafeRawBufferPointer) -> UInt32 {
        cairn_crc32c_portable(0, bytes.baseAddress, bytes.count)
    }
}

/// CRC-32 (IEEE 802.3), as zlib computes it.
public enum CRC32 {
    public static func extend(_ crc: UInt32 = 0, _ bytes: UnsafeRawBufferPointer) -> UInt32 {
        guard let base = bytes.baseAddress else { return crc }
        return UInt32(crc32_z(UInt(crc), base.assumingMemoryBound(to: UInt8.self), bytes.count))
    }
}
