import CairnCore
import CairnTesting
import CairnWire
import Testing

@testable import CairnClient

struct DownloadReaderTests {
    static let bytes = [UInt8](repeating: 7, count: 512)
    static let checksum = bytes.withUnsafeBytes { Checksum(.crc32c, of: $0) }

    static func block(_ offset: UInt64, _ length: UInt32 = 512, _ content: Wire.DownloadedBlock.Content? = nil)
        -> Wire.DownloadedBlock
    {
        var block = Wire.DownloadedBlock(offset: offset, length: length)
        block.content = content ?? .payloadLength(length)
        block.checksum = checksum.wire
        return block
    }

    func read(
        _ blocks: [Wire.DownloadedBlock],
        payload: Int,
        ranges: [BlockRange],
        checkedBy algorithm: ChecksumAlgorithm = .crc32c
    ) throws -> Int {
        let slice = payload == 0 ? nil : Buffer(copying: [UInt8](repeating: 7, count: payload)).slice
        var reader = DownloadReader(
            Wire.DownloadBlockResponse(blocks: blocks),
            payload: slice,
            ranges: ranges,
            checkedBy: algorithm
        )
        var count = 0
        while let part = try reader.next() {
            _ = try part.decoded()
            count += 1
        }
        return count
    }

    @Test func aGoodAnswerIsRead() throws {
        let blocks = [Self.block(0), Self.block(512, 1024, .hole(Wire.Empty())), Self.block(4096)]
        let ranges = [BlockRange(offset: 0, length: 1536), BlockRange(offset: 4096, length: 512)]
        #expect(try read(blocks, payload: 1024, ranges: ranges) == 3)
    }

    @Test(
        arguments: [
            ([block(0)], 512, 1024), ([block(512)], 512, 512), ([block(0), block(512)], 1024, 512),
            ([block(0)], 1024, 512), ([block(0)], 256, 512), ([block(0, 512, .payloadLength(100))], 100, 512),
            ([block(0, 1024)], 1024, 512), ([block(0, 0)], 0, 512),
        ] as [([Wire.DownloadedBlock], Int, UInt64)]
    )
    func aBadAnswerIsRefused(blocks: [Wire.DownloadedBlock], payload: Int, length: UInt64) {
        #expect { try read(blocks, payload: payload, ranges: [BlockRange(offset: 0, length: length)]) } throws: {
            ($0 as? ClientError)?.code == .protocolViolation
        }
    }

    @Test("U4: a block without the checksum that was asked for is damaged", arguments: ChecksumAlgorithm.allCases)
    func checksums(_ algorithm: ChecksumAlgorithm) throws {
        let ranges = [BlockRange(offset: 0, length: 512)]
        let good = Self.bytes.withUnsafeBytes { Checksum(algorithm, of: $0) }
        var block = Self.block(0)
        block.checksum = good.wire
        #expect(try read([block], payload: 512, ranges: ranges, checkedBy: algorithm) == 1)
        var (wrong, short) = (good, good)
        wrong.value[0] ^= 1
        short.value.removeLast()
        let other: ChecksumAlgorithm = algorithm == .md5 ? .sha256 : .md5
        let foreign = Self.bytes.withUnsafeBytes { Checksum(other, of: $0) }
        for checksum in [wrong.wire, short.wire, foreign.wire, nil] {
            block.checksum = checksum
            let bad = block
            #expect { try read([bad], payload: 512, ranges: ranges, checkedBy: algorithm) } throws: {
                ($0 as? ClientError)?.code == .damaged
            }
        }
    }

    @Test func aShortLastChunkMayComePadded() throws {
        var random = SeededRandom(seed: 1)
        let chunk = random.text(1536) + [UInt8](repeating: 0, count: 2560)
        var packed = [UInt8](repeating: 0, count: 4096)
        let count = try #require(
            chunk.withUnsafeBytes { from in packed.withUnsafeMutableBytes { LZ4.compress(from, into: $0) } }
        )
        var block = Wire.DownloadedBlock(offset: 8192, length: 1536)
        block.codec = .lz4
        block.content = .payloadLength(UInt32(count))
        let checksum = chunk.withUnsafeBytes { Checksum(.crc32c, of: UnsafeRawBufferPointer(rebasing: $0[..<1536])) }
        block.checksum = checksum.wire
        var reader = DownloadReader(
            Wire.DownloadBlockResponse(blocks: [block]),
            payload: Buffer(copying: packed[0..<count]).slice,
            ranges: [BlockRange(offset: 8192, length: 1536)],
            checkedBy: .crc32c
        )
        let part = try #require(try reader.next())
        guard case .data(let bytes) = try part.decoded().content else { return #expect(Bool(false), "no data") }
        #expect(Array(bytes.bytes) == Array(chunk[..<1536]))
    }
}
