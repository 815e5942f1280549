import CairnCore
import CairnCrypto
import CairnTesting
import CairnWire

enum Content {
    /// Bytes that no codec makes smaller.
    static func noise(_ seed: UInt64, _ count: Int) -> [UInt8] {
        var generator = SeededRandom(seed: seed)
        // Word by word, and the last one's first bytes.
        let words = (0..<(count + 7) / 8).map { _ in generator.next().littleEndian }
        return words.withUnsafeBytes { Array($0.prefix(count)) }
    }

    /// Bytes that LZ4 makes much smaller.
    static func text(_ seed: UInt64, _ count: Int) -> [UInt8] {
        let line = noise(seed, 97)
        var bytes: [UInt8] = []
        bytes.reserveCapacity(count + 97)
        while bytes.count < count { bytes.append(contentsOf: line) }
        return Array(bytes.prefix(count))
    }

    static func lz4(_ bytes: [UInt8]) -> [UInt8] {
        var packed = [UInt8](repeating: 0, count: LZ4.bound(bytes.count))
        let count = bytes.withUnsafeBytes { source in packed.withUnsafeMutableBytes { LZ4.compress(source, into: $0) } }
        return Array(packed[0..<count!])
    }

    /// A valid LZ4 block of ``text(_:_:)`` that no compressor makes: its one match begins two lines back, and not one.
    static func handmadeLZ4(_ text: [UInt8]) -> [UInt8] {
        let (head, tail) = (194, 64)
        /// What a length has beyond the 15 of its half of the token.
        func more(_ length: Int) -> [UInt8] {
            [UInt8](repeating: 255, count: (length - 15) / 255) + [UInt8((length - 15) % 255)]
        }
        return [0xff] + more(head) + text.prefix(head) + [UInt8(head), 0] + more(text.count - head - tail - 4)
            + [0xf0] + more(tail) + text.suffix(tail)
    }

    static func crc32c(_ bytes: [UInt8]) -> Wire.Checksum {
        let value = bytes.withUnsafeBytes { CRC32C.extend(0, $0) }
        return Wire.Checksum(algorithm: .crc32c, value: littleEndian(value))
    }

    static func littleEndian(_ value: some FixedWidthInteger) -> [UInt8] {
        withUnsafeBytes(of: value.littleEndian, Array.init)
    }

    /// The token of a chunk that holds `bytes` (SPEC U6, V6).
    static func token(_ bytes: [UInt8], chunkSize: Int = 65536) -> [UInt8] {
        bytes.withUnsafeBytes { SHA256.hash($0, padding: chunkSize - bytes.count).bytes }
    }

    /// The seal of a snapshot that holds `bytes` (SPEC S6).
    static func seal(_ bytes: [UInt8], chunkSize: Int) -> [UInt8] {
        let tokens = stride(from: 0, to: bytes.count, by: chunkSize).map { start in
            token(Array(bytes[start..<min(start + chunkSize, bytes.count)]), chunkSize: chunkSize)
        }
        return seal(of: tokens, size: UInt64(bytes.count), chunkSize: chunkSize)
    }

    /// The seal of a snapshot with these chunks, in order.
    static func seal(of tokens: [[UInt8]], size: UInt64, chunkSize: Int) -> [UInt8] {
        var builder = SealBuilder(size: size, chunkSize: ChunkSize(bytes: chunkSize)!)
        for token in tokens { builder.add(Fingerprint(bytes: token)!) }
        return builder.finish().bytes
    }
}
