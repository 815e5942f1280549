public import CairnCore

/// The fingerprint of a chunk whose bytes are all zero, of each chunk size. Such chunks are marks, never stored.
public enum ZeroChunk {
    private static let fingerprints: [Fingerprint] = (ChunkSize.minimum.exponent...ChunkSize.maximum.exponent).map {
        SHA256.hash(UnsafeRawBufferPointer(start: nil, count: 0), padding: 1 << Int($0))
    }

    public static func fingerprint(_ size: ChunkSize) -> Fingerprint {
        fingerprints[Int(size.exponent - ChunkSize.minimum.exponent)]
    }

    /// Whether it is the one of any size.
    public static func isZero(_ fingerprint: Fingerprint) -> Bool { fingerprints.contains(fingerprint) }

    /// The size of the chunk of zeros that has this fingerprint; nil: it is no such chunk's.
    public static func size(of fingerprint: Fingerprint) -> ChunkSize? {
        fingerprints.firstIndex(of: fingerprint).flatMap { ChunkSize(bytes: ChunkSize.minimum.bytes << $0) }
    }
}
