import CairnCore
import CairnWire
import Testing

@testable import CairnService

@Suite struct SealedTokenTests {
    private let id = UUID128(high: 0x0001_0203_0405_0607, low: 0x0809_0a0b_0c0d_0e0f)

    private var damage: DamageCursor {
        var cursor = DamageCursor(shard: ShardIndex(2), stage: .snapshots)
        (cursor.createdAt, cursor.id, cursor.chunk, cursor.isWithin) = (0x0123_4567_89ab_cdef, id, 300, true)
        return cursor
    }

    /// One that goes on with a token.
    private func call(_ token: [UInt8] = [], of account: String = "alice") -> PagedCall {
        PagedCall(Wire.ListVolumesRequest(page: .init(pageToken: token)), of: AccountID(account))
    }

    @Test("The bytes of a snapshot's token stay: a server of another version knows the snapshot")
    func golden() throws {
        let snapshot = SnapshotID(id)
        #expect(Hex.encode(SnapshotToken.token(snapshot)) == "01000102030405060708090a0b0c0d0e0fb7edb01e")
        #expect(try SnapshotToken.id(SnapshotToken.token(snapshot)) == snapshot)
    }

    @Test("Page tokens open to what they were made of; an empty one is the first page")
    func places() throws {
        let listing = ListingCursor(createdMilliseconds: 0x0123_4567_89ab_cdef, id: id)
        let account = try #require(AccountID("alice"))
        #expect(try ListingCursor(call(listing.token(in: call()))) == listing)
        #expect(try BlockCursor.chunk(call(BlockCursor.token(ChunkIndex(300), in: call()))) == ChunkIndex(300))
        #expect(try AccountCursor.account(call(AccountCursor.token(account, in: call()))) == account)
        #expect(try GrantCursor.key(call(GrantCursor.token([7, 8, 9], in: call()))) == [7, 8, 9])
        let token = damage.token(in: call())
        #expect(try DamageCursor(call(token))?.token(in: call()) == token)
        #expect(try BlockCursor.chunk(call()) == nil)
        #expect(try ListingCursor(call()) == nil)
    }

    @Test("R1: a page token is good for one method, one account and the same filters, whatever the page's size")
    func scopes() throws {
        let token = BlockCursor.token(ChunkIndex(300), in: call())
        let account = AccountID("alice")
        let others: [PagedCall] = [
            call(token, of: "bob"), PagedCall(Wire.ListVolumesRequest(page: .init(pageToken: token)), of: nil),
            PagedCall(Wire.ListSnapshotsRequest(page: .init(pageToken: token)), of: account),
            PagedCall(Wire.ListVolumesRequest(page: .init(pageToken: token), state: .available), of: account),
            PagedCall(
                Wire.ListVolumesRequest(page: .init(pageToken: token), tags: [.init(key: "a", value: "b")]),
                of: account
            ),
        ]
        for other in others {
            let error = #expect(throws: ServiceError.self) { try BlockCursor.chunk(other) }
            #expect(error?.code == .invalidArgument && error?.text.contains("page_token") == true)
        }
        let larger = PagedCall(Wire.ListVolumesRequest(page: .init(limit: 7, pageToken: token)), of: account)
        #expect(try BlockCursor.chunk(larger) == ChunkIndex(300))
    }

    @Test("A token with any bit changed, cut, made longer or of another kind is refused")
    func refused() throws {
        let token = BlockCursor.token(ChunkIndex(300), in: call())
        for bit in 0..<token.count * 8 {
            var wrong = token
            wrong[bit / 8] ^= 1 << UInt8(bit % 8)
            #expect(throws: ServiceError.self) { try BlockCursor.chunk(call(wrong)) }
        }
        for count in 1..<token.count {
            #expect(throws: ServiceError.self) { try BlockCursor.chunk(call(Array(token.prefix(count)))) }
        }
        let longer = call().seal(version: 2) { $0.put(bytes: [UInt8](repeating: 0, count: 9)) }
        let listing = ListingCursor(createdMilliseconds: 1, id: id).token(in: call())
        let empty = call().seal(version: 3) { _ in }
        #expect(throws: ServiceError.self) { try BlockCursor.chunk(call(longer)) }
        #expect(throws: ServiceError.self) { try ListingCursor(call(token)) }
        #expect(throws: ServiceError.self) { try AccountCursor.account(call(damage.token(in: call()))) }
        #expect(throws: ServiceError.self) { try DamageCursor(call(listing)) }
        #expect(throws: ServiceError.self) { try GrantCursor.key(call(empty)) }
        #expect(throws: ServiceError.self) { try SnapshotToken.id(token) }
        #expect(throws: ServiceError.self) { try SnapshotToken.id([]) }
    }
}
