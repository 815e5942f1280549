import CairnCore
import CairnCrypto
import CairnTesting

/// The bytes behind stamps, and chunks that were made up so far.
struct ModelContents {
    struct Chunk {
        let stamps: [Stamp]
        let fingerprint: Fingerprint
        let size: ChunkSize
    }
    private var nextStamp: Stamp = 1
    /// Chunks that somebody has, or had; the newest last.
    private(set) var known: [Chunk] = []
    private var fingerprints: [[Stamp]: Fingerprint] = [:]

    static func bytes(_ stamps: ArraySlice<Stamp>) -> [UInt8] {
        [UInt8](unsafeUninitializedCapacity: stamps.count * 512) { buffer, filled in
            let raw = UnsafeMutableRawBufferPointer(buffer)
            for (place, stamp) in stamps.enumerated() {
                var random = SeededRandom(seed: UInt64(stamp))
                for word in 0..<64 {
                    // Half of the stamps compress.
                    let value: UInt64 = stamp == 0 ? 0 : stamp & 2 == 0 || word & 3 == 0 ? random.next() : UInt64(stamp)
                    raw.storeBytes(of: value, toByteOffset: place * 512 + word * 8, as: UInt64.self)
                }
            }
            filled = stamps.count * 512
        }
    }

    static func bytes(_ stamps: [Stamp]) -> [UInt8] { bytes(stamps[...]) }

    mutating func stamp() -> Stamp {
        nextStamp += 1
        return nextStamp
    }

    mutating func fingerprint(_ stamps: [Stamp]) -> Fingerprint {
        if let known = fingerprints[stamps] { return known }
        if fingerprints.count > 20_000 { fingerprints = [:] }
        let fingerprint = Self.bytes(stamps).withUnsafeBytes { SHA256.hash($0) }
        fingerprints[stamps] = fingerprint
        return fingerprint
    }

    /// A chunk of new bytes; sectors beyond `room` are zeros, as in a volume's last chunk.
    mutating func make(_ size: ChunkSize, room: Int, _ random: inout SeededRandom) -> Chunk {
        var stamps = [Stamp](repeating: 0, count: size.bytes / 512)
        let isSparse = random.chance(20)
        for place in 0..<room where !isSparse || random.chance(40) { stamps[place] = stamp() }
        return remember(stamps, size)
    }

    @discardableResult
    mutating func remember(_ stamps: [Stamp], _ size: ChunkSize) -> Chunk {
        let chunk = Chunk(stamps: stamps, fingerprint: fingerprint(stamps), size: size)
        if stamps.contains(where: { $0 != 0 }) { known.append(chunk) }
        if known.count > 300 { known.removeFirst(100) }
        return chunk
    }
}
