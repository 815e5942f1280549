import CairnCore
import Testing

@testable import CairnTransport

@Suite struct OutboxTests {
    /// Whatever is put in comes out, in order, however it is taken.
    @Test(arguments: 1...50) func anyOrderOfTaking(seed: UInt64) {
        var random = SystemRandomNumberGenerator()
        var outbox = Outbox()
        var spare: [UInt8] = []
        var expected: [UInt8] = []
        var taken: [UInt8] = []
        var next: UInt8 = 0
        for _ in 0..<60 {
            outbox.borrow(&spare)
            let count = [0, 1, 32, 4096, 4097, 20_000].randomElement(using: &random)!
            let bytes = [UInt8](repeating: next, count: count)
            next &+= 1
            expected += bytes
            if Bool.random(using: &random) {
                outbox.append { $0.append(contentsOf: bytes) }
            } else {
                outbox.append(Buffer(copying: bytes).slice.part(0..<count))
            }
            guard Bool.random(using: &random) else { continue }
            var room = Int.random(in: 0...30_000, using: &random)
            outbox.drain { (raw: UnsafeRawBufferPointer) throws(Never) -> Int in
                let count = min(raw.count, room)
                room -= count
                taken += raw[..<count]
                return count
            }
            outbox.giveBack(&spare)
        }
        outbox.drain { (raw: UnsafeRawBufferPointer) throws(Never) -> Int in
            taken += raw
            return raw.count
        }
        #expect(taken == expected)
        #expect(outbox.isEmpty)
    }
}
