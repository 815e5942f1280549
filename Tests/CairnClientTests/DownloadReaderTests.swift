import CairnCore
import CairnTesting
import CairnWire
import Testing

@testable import CairnClient

struct DownloadReaderTests {
    static let bytes = [UInt8](repeating: 7, count: 512)
    static let crc32c = bytes.withUnsafeBytes { CRC32C.extend(0, $0) }

    static func block(_ offset: UInt64, _ length: UInt32 = 512, _ content: Wire.DownloadedBlock.Content? = nil)
        -> Wire.DownloadedBlock
    {
        var block = Wire.DownloadedBlock(offset: offset, length: length)
        block.content = content ?? .payloadLength(length)
        block.checksum = .crc32c(crc32c)
        return block
    }

    func read(_ blocks: [Wire.DownloadedBlock], payload: Int, ranges: [BlockRange]) throws -> Int {
        let slice = payload == 0 ? nil : Buffer(copying: [UInt8](repeating: 7, count: payload)).slice
        var reader = DownloadReader(Wire.DownloadBlockResponse(blocks: blocks), payload: slice, ranges: ranges)
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

    @Test func aBlockWithoutItsChecksumIsDamaged() {
        var block = Self.block(0)
        block.checksum = .crc32c(Self.crc32c ^ 1)
        #expect { try read([block], payload: 512, ranges: [BlockRange(offset: 0, length: 512)]) } throws: {
            ($0 as? ClientError)?.code == .damaged
        }
        block.checksum = nil
        #expect { try read([block], payload: 512, ranges: [BlockRange(offset: 0, length: 512)]) } throws: {
            ($0 as? ClientError)?.code == .damaged
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
        block.checksum = .crc32c(
            chunk.withUnsafeBytes { CRC32C.extend(0, UnsafeRawBufferPointer(rebasing: $0[..<1536])) }
        )
        var reader = DownloadReader(
            Wire.DownloadBlockResponse(blocks: [block]),
            payload: Buffer(copying: packed[0..<count]).slice,
            ranges: [BlockRange(offset: 8192, length: 1536)]
        )
        let part = try #require(try reader.next())
        guard case .data(let bytes) = try part.decoded().content else { return #expect(Bool(false), "no data") }
        #expect(Array(bytes.bytes) == Array(chunk[..<1536]))
    }
}
