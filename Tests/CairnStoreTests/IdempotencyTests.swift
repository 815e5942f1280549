import CairnCore
import CairnCrypto
import Testing

@testable import CairnStore

/// Answers that are kept for calls that are made again.
@Suite struct IdempotencyTests {
    private static let day: UInt64 = 24 * 3600 * 1000

    private func key(_ number: Int) -> [UInt8] { Array("call-\(number)".utf8) }

    private func keep(_ number: Int, at time: UInt64, in scratch: ScratchStore, aborting: Bool = false) throws {
        let record = IdempotencyRecord(
            call: .createVolume,
            parameters: SHA256.hash(key(number)),
            answer: [UInt8(number % 256)],
            createdAt: time
        )
        let key = key(number)
        try scratch.change { (transaction) throws(StoreError) in
            try transaction.putIdempotencyRecord(record, account: ScratchStore.account, key: key)
            if aborting { transaction.abort() }
        }
    }

    /// The numbers of the calls that are still known.
    private func known(_ count: Int, in scratch: ScratchStore) throws -> [Int] {
        let view = scratch.shard.makeView()
        return try (0..<count).filter {
            try view.idempotencyRecord(account: ScratchStore.account, key: key($0)) != nil
        }
    }

    @Test(
        "C5: what is older than two days is forgotten, the oldest first, two for each that comes; an undone call forgets nothing"
    )
    func forgotten() throws {
        let scratch = try ScratchStore()
        for number in 0..<10 { try keep(number, at: Self.day + UInt64(number), in: scratch) }
        try keep(10, at: 2 * Self.day, in: scratch)
        #expect(try known(11, in: scratch) == Array(0..<11))
        try keep(11, at: 4 * Self.day, in: scratch)
        #expect(try known(12, in: scratch) == Array(2..<12))
        try keep(12, at: 4 * Self.day, in: scratch, aborting: true)
        #expect(try known(13, in: scratch) == Array(2..<12))
        try keep(13, at: 4 * Self.day, in: scratch)
        #expect(try known(14, in: scratch) == Array(4..<12) + [13])
        try scratch.reopen()
        for number in 14..<20 { try keep(number, at: 4 * Self.day + 1, in: scratch) }
        // That of the second day has become too old by a moment.
        #expect(try known(20, in: scratch) == [11] + Array(13..<20))
    }
}
