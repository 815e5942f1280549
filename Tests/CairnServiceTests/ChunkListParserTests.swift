import CairnCore
import CairnWire
import Testing

@testable import CairnService

@Suite struct ChunkListParserTests {
    /// Takes the bytes in pieces of random lengths.
    private func parse(_ bytes: [UInt8], _ seed: UInt64) throws -> (items: [Wire.ChunkPlacement], isComplete: Bool) {
        var parser = ChunkListParser()
        var items: [Wire.ChunkPlacement] = []
        let cuts = noise(bytes.count + 1, seed: seed)
        var position = 0
        while position < bytes.count {
            let end = min(bytes.count, position + 1 + Int(cuts[position] % 50))
            try bytes[position..<end].withUnsafeBytes { piece in try parser.take(piece) { items.append($0) } }
            position = end
        }
        return (items, parser.isComplete)
    }

    private func list(_ count: Int) -> [Wire.ChunkPlacement] {
        (0..<count).map { .init(offset: UInt64($0) << ($0 % 40), token: noise(32, seed: UInt64($0) + 1)) }
    }

    @Test("S5: items come out whole wherever the bytes are cut; zeros between them are padding")
    func cuts() throws {
        let items = list(60)
        let encoded = Wire.ChunkList(chunks: items).encode()
        for seed in 1...40 as ClosedRange<UInt64> {
            let zeros = [UInt8](repeating: 0, count: Int(seed))
            let (found, isComplete) = try parse(zeros + encoded + zeros + encoded, seed)
            #expect(found == items + items && isComplete)
        }
        let torn = try parse(Array(encoded.dropLast()), 9)
        #expect(torn.items == items.dropLast() && !torn.isComplete)
    }

    @Test("S5: fields that are not known yet are skipped, in the list and in its items")
    func unknownFields() throws {
        let item = Wire.ChunkPlacement(offset: 7, token: [1, 2])
        let extended = item.encode() + [0x18, 0x96, 0x01]
        var bytes: [UInt8] = [0x10, 0xff, 0x01, 0x1d, 1, 2, 3, 4, 0x21, 1, 2, 3, 4, 5, 6, 7, 8, 0x2a, 3, 0, 0, 0]
        bytes += [0x0a, UInt8(extended.count)] + extended
        #expect(try parse(bytes, 3).items == [item])
    }

    @Test("S5: what is no list is refused, naming the item, and costs no memory")
    func malformed() throws {
        let good = Wire.ChunkList(chunks: list(3)).encode()
        let bad: [[UInt8]] = [
            [0x0a, 0x81, 0x08], [0x08, 0x01], [0x0b], [0x0f], [0x02, 0x01], [0x0a, 0x02, 0x08, 0xff],
            [0x0a] + [UInt8](repeating: 0xff, count: 10), [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
            [0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f],
        ]
        for bytes in bad {
            for seed in 1...5 as ClosedRange<UInt64> {
                let error = #expect(throws: ServiceError.self) { try parse(good + bytes, seed) }
                #expect(error?.code == .invalidArgument && error?.blockIndex == 3, "\(bytes)")
            }
        }
    }

    @Test("S5: random bytes never trap")
    func fuzz() {
        for seed in 1...400 as ClosedRange<UInt64> {
            var bytes = Wire.ChunkList(chunks: list(4)).encode()
            let spoil = noise(8, seed: seed)
            for index in 0..<4 { bytes[Int(spoil[index]) % bytes.count] = spoil[index + 4] }
            _ = try? parse(bytes, seed)
            _ = try? parse(noise(300, seed: seed), seed)
        }
    }
}
