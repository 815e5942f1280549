import CairnCore
import CairnCrypto
import Testing

/// The seal against its definition, written down as plainly as possible.
struct SealBuilderTests {
    static let chunkSize = ChunkSize.minimum

    static func defined(size: UInt64, leaves: [Fingerprint]) -> Fingerprint {
        var level: UInt8 = 1
        var nodes = leaves
        while nodes.count > 1 {
            nodes = stride(from: 0, to: nodes.count, by: 256).map { start in
                let children = nodes[start..<min(start + 256, nodes.count)].flatMap(\.bytes)
                return SHA256.hash(Array("cairn-seal-node-1".utf8) + [level] + children)
            }
            level += 1
        }
        var head = ByteWriter()
        head.put(bytes: Array("cairn-seal-1".utf8))
        head.put(size)
        head.put(UInt32(chunkSize.bytes))
        return SHA256.hash(head.bytes + nodes[0].bytes)
    }

    @Test(arguments: [1, 2, 255, 256, 257, 511, 512, 513, 65535, 65536, 65537])
    func matchesItsDefinition(count: Int) {
        let leaves = (0..<count).map { SHA256.hash([UInt8($0 & 255), UInt8($0 >> 8 & 255), UInt8($0 >> 16)]) }
        let size = UInt64(count) * 4096 - 512
        var builder = SealBuilder(size: size, chunkSize: Self.chunkSize)
        for leaf in leaves { builder.add(leaf) }
        #expect(builder.finish() == Self.defined(size: size, leaves: leaves))
    }

    @Test(arguments: [
        (0, 1, 0), (3, 256, 5), (1, 512, 0), (0, 65536, 1), (255, 66_000, 300), (256, 131_072, 0), (0, 256, 0),
    ])
    func runsOfZerosAreLikeSingleOnes(before: Int, zeros: Int, after: Int) {
        let zero = ZeroChunk.fingerprint(Self.chunkSize)
        let data = { (index: Int) in SHA256.hash([UInt8(index & 255), UInt8(index >> 8)]) }
        let leaves = (0..<before).map(data) + Array(repeating: zero, count: zeros) + (0..<after).map(data)
        let size = UInt64(leaves.count) * 4096
        var builder = SealBuilder(size: size, chunkSize: Self.chunkSize)
        for leaf in leaves.prefix(before) { builder.add(leaf) }
        builder.add(zeros: UInt64(zeros))
        for leaf in leaves.suffix(after) { builder.add(leaf) }
        #expect(builder.finish() == Self.defined(size: size, leaves: leaves))
    }

    @Test func aSealOf64TiBOfZerosIsQuick() {
        var builder = SealBuilder(size: 64 << 40, chunkSize: Self.chunkSize)
        builder.add(zeros: builder.leafCount)
        let whole = builder.finish()
        var halves = SealBuilder(size: 64 << 40, chunkSize: Self.chunkSize)
        halves.add(zeros: 77)
        halves.add(zeros: halves.leafCount - 77)
        #expect(halves.finish() == whole)
    }
}
