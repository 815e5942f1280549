import CairnCore
import Testing

@testable import CairnService

@Suite struct SealedTokenTests {
    private let id = UUID128(high: 0x0001_0203_0405_0607, low: 0x0809_0a0b_0c0d_0e0f)

    private var damage: DamageCursor {
        var cursor = DamageCursor(shard: ShardIndex(2), stage: .snapshots)
        (cursor.createdAt, cursor.id, cursor.chunk, cursor.isWithin) = (0x0123_4567_89ab_cdef, id, 300, true)
        return cursor
    }

    @Test("The bytes of tokens stay: a server of another version goes on with a listing, and knows a snapshot")
    func golden() throws {
        let listing = ListingCursor(createdMilliseconds: 0x0123_4567_89ab_cdef, id: id)
        let account = try #require(AccountID("alice"))
        let snapshot = SnapshotID(id)
        #expect(hex(listing.token) == "01efcdab8967452301000102030405060708090a0b0c0d0e0ffcca3c2f")
        #expect(hex(BlockCursor.token(ChunkIndex(300))) == "022c01000000000000247d5150")
        #expect(hex(AccountCursor.token(account)) == "0305000000616c696365b56a4a2f")
        #expect(hex(GrantCursor.token([7, 8, 9])) == "03070809e3be13bb")
        #expect(
            hex(damage.token)
                == "03020001efcdab8967452301000102030405060708090a0b0c0d0e0f2c0100000000000001a9e7a80f"
        )
        #expect(hex(SnapshotToken.token(snapshot)) == "01000102030405060708090a0b0c0d0e0fb7edb01e")

        #expect(try ListingCursor(token: listing.token) == listing)
        #expect(try BlockCursor.chunk(BlockCursor.token(ChunkIndex(300))) == ChunkIndex(300))
        #expect(try AccountCursor.account(AccountCursor.token(account)) == account)
        #expect(try GrantCursor.key(GrantCursor.token([7, 8, 9])) == [7, 8, 9])
        #expect(try DamageCursor(token: damage.token)?.token == damage.token)
        #expect(try SnapshotToken.id(SnapshotToken.token(snapshot)) == snapshot)
    }

    @Test(
        "A token with any bit changed, cut, made longer or of another kind is refused; an empty one is the first page"
    )
    func refused() throws {
        let token = BlockCursor.token(ChunkIndex(300))
        for bit in 0..<token.count * 8 {
            var wrong = token
            wrong[bit / 8] ^= 1 << UInt8(bit % 8)
            #expect(throws: ServiceError.self) { try BlockCursor.chunk(wrong) }
        }
        for count in 1..<token.count {
            #expect(throws: ServiceError.self) { try BlockCursor.chunk(Array(token.prefix(count))) }
        }
        let longer = SealedToken.seal(version: 2) { $0.put(bytes: [UInt8](repeating: 0, count: 9)) }
        let listing = ListingCursor(createdMilliseconds: 1, id: id).token
        let empty = SealedToken.seal(version: 3) { _ in }
        #expect(throws: ServiceError.self) { try BlockCursor.chunk(longer) }
        #expect(throws: ServiceError.self) { try ListingCursor(token: token) }
        #expect(throws: ServiceError.self) { try AccountCursor.account(damage.token) }
        #expect(throws: ServiceError.self) { try DamageCursor(token: listing) }
        #expect(throws: ServiceError.self) { try GrantCursor.key(empty) }
        #expect(throws: ServiceError.self) { try SnapshotToken.id(token) }
        #expect(throws: ServiceError.self) { try SnapshotToken.id([]) }
        #expect(try BlockCursor.chunk([]) == nil)
        #expect(try ListingCursor(token: []) == nil)
    }

    private func hex(_ bytes: [UInt8]) -> String { Hex.encode(bytes) }
}
