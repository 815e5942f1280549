import CairnCore
import CairnCrypto
import Testing

@testable import CairnClient

struct PlacementMapTests {
    static let token = SHA256.hash([1, 2, 3])

    func map(_ blocks: [BlockDescription], isLast: Bool = true, size: UInt64 = 40_960) throws -> PlacementMap {
        var map = PlacementMap(chunkSize: .minimum, size: size)
        try map.add(blocks, isLast: isLast)
        return map
    }

    @Test func blocksBecomeChunks() throws {
        var map = try map([
            BlockDescription(offset: 4096, length: 4096, state: .data, token: Self.token),
            BlockDescription(offset: 8192, length: 8192, state: .zeros),
            BlockDescription(offset: 20480, length: 4096, state: .data),
            BlockDescription(offset: 24576, length: 512, state: .zeros),
        ])
        #expect(map.firstAllocated(from: 0) == 4096)
        #expect(map.take(0..<12288) == [.hole, .chunk(Self.token), .zeros])
        #expect(map.firstAllocated(from: 12288) == 12288, "a run goes on")
        #expect(map.take(12288..<40960) == [.zeros, .hole, .unknown, .unknown, .hole, .hole, .hole])
        #expect(map.count == 0)
    }

    @Test func theLastChunkIsShort() throws {
        var map = try map([BlockDescription(offset: 4096, length: 512, state: .data, token: Self.token)], size: 4608)
        #expect(map.take(0..<4608) == [.hole, .chunk(Self.token)])
    }

    @Test func whatIsNotListedYetIsNotKnown() throws {
        var map = try map([BlockDescription(offset: 4096, length: 4096, state: .data)], isLast: false)
        #expect(map.known == 8192)
        try map.add([], isLast: false)
        #expect(map.known == 8192)
        try map.add([], isLast: true)
        #expect(map.known == 40960)
    }

    @Test("D5: of a listing that is refused half way the rest may hold anything")
    func theRestIsUnknown() throws {
        var map = try map([BlockDescription(offset: 4096, length: 4096, state: .zeros)], isLast: false)
        map.end()
        #expect(map.known == 40960 && map.firstAllocated(from: 8192) == 8192)
        #expect(map.take(0..<16384) == [.hole, .zeros, .unknown, .unknown])
        #expect(map.take(32768..<40960) == [.unknown, .unknown] && map.count == 0)
    }

    @Test(arguments: [
        [
            BlockDescription(offset: 8192, length: 4096, state: .data),
            BlockDescription(offset: 4096, length: 4096, state: .data),
        ],
        [
            BlockDescription(offset: 0, length: 8192, state: .zeros),
            BlockDescription(offset: 4096, length: 4096, state: .data),
        ],
        [BlockDescription(offset: 40960, length: 4096, state: .data)],
        [BlockDescription(offset: .max - 100, length: 4096, state: .data)],
        [BlockDescription(offset: 0, length: 0, state: .data)],
    ])
    func nonsenseIsRefused(blocks: [BlockDescription]) {
        #expect(throws: ClientError.self) { _ = try map(blocks) }
    }
}

struct PieceLayoutTests {
    @Test(arguments: [(4096, 1 << 20), (16 << 10, 4 << 20), (64 << 10, 4 << 20), (4 << 20, 4 << 20)])
    func piecesAreOfAGoodSize(chunk: Int, piece: Int) {
        let layout = PieceLayout(chunkSize: ChunkSize(bytes: chunk)!, volumeSize: 1 << 30)
        #expect(layout.pieceBytes == piece)
        #expect(layout.pieces(in: 64 << 20) * piece <= 64 << 20)
    }

    @Test func boundaries() {
        let layout = PieceLayout(chunkSize: .minimum, volumeSize: 10_240, chunksPerCall: 2)
        #expect(layout.pieceBytes == 8192)
        #expect(layout.chunkEnd(1) == 4096 && layout.chunkEnd(4096) == 4096 && layout.chunkEnd(8193) == 10_240)
        #expect(layout.chunks(of: 4096..<10_240) == [4096..<8192, 8192..<10_240])
    }
}

struct ClaimTableTests {
    final class Waiter {}

    @Test func theFirstBringsTheOthersWait() {
        var table = ClaimTable<Waiter>()
        let first = Waiter()
        let second = Waiter()
        let chunk = SHA256.hash([1])
        let other = SHA256.hash([2])
        let claims = [
            table.claim(chunk, waiter: first), table.claim(chunk, waiter: first), table.claim(chunk, waiter: second),
        ]
        #expect(claims == [true, false, false])
        let isFirst = table.claim(other, waiter: second)
        #expect(isFirst)
        let woken = table.release([chunk, other])
        #expect(woken.count == 2 && woken[0] === first && woken[1] === second)
        #expect(table.isEmpty)
    }
}
