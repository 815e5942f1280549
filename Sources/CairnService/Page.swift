import CairnCore
import CairnStore
import CairnWire

/// A request whose answer comes in pages.
protocol PagedRequest: WireMessage {
    var page: Wire.PageRequest? { get set }
}

extension Wire.ListVolumesRequest: PagedRequest {}
extension Wire.ListSnapshotsRequest: PagedRequest {}
extension Wire.ListBlocksRequest: PagedRequest {}
extension Wire.ListChangedBlocksRequest: PagedRequest {}
extension Wire.MissingBlocksRequest: PagedRequest {}
extension Wire.ListDamageRequest: PagedRequest {}
extension Wire.ListGrantsRequest: PagedRequest {}
extension Wire.ListAccountsRequest: PagedRequest {}

/// The listing that a call asks for a page of (SPEC R1). A page token is good for the same method, account and filters alone.
struct PagedCall: Sendable {
    static let refusal = ServiceError(.invalidArgument, "page_token is not one that this listing gave")

    private let token: [UInt8]
    private let scope: UInt32

    /// - Parameter account: nil: the operator.
    init<Request: PagedRequest>(_ request: Request, of account: AccountID?) {
        token = request.page?.pageToken ?? []
        var filters = request
        filters.page = nil
        let parts = [Array(Request.messageName.utf8), [0], Array((account?.name ?? "").utf8), [0], filters.encode()]
        scope = parts.reduce(0) { scope, part in part.withUnsafeBytes { CRC32C.extend(scope, $0) } }
    }

    /// The token of the page that begins at a place.
    func seal(version: UInt8, _ put: (inout ByteWriter) -> Void) -> [UInt8] {
        SealedToken.seal(version: version, scope: scope, put)
    }

    /// The place in the call's token; nil for an empty one. Throws INVALID_ARGUMENT for one that this listing did not give.
    func open<Place>(version: UInt8, _ take: (inout ByteReader) -> Place?) throws(ServiceError) -> Place? {
        guard !token.isEmpty else { return nil }
        guard let place = SealedToken.open(token, version: version, scope: scope, take) else { throw Self.refusal }
        return place
    }
}

/// A place in a listing that is ordered by creation time, then ID.
struct ListingCursor: Sendable, Equatable, Comparable {
    private static let version: UInt8 = 1
    let createdMilliseconds: UInt64
    let id: UUID128

    func token(in call: PagedCall) -> [UInt8] {
        call.seal(version: Self.version) {
            $0.put(createdMilliseconds)
            $0.put(bytes: id.bytes)
        }
    }

    init(createdMilliseconds: UInt64, id: UUID128) {
        self.createdMilliseconds = createdMilliseconds
        self.id = id
    }

    /// Nil for the first page.
    init?(_ call: PagedCall) throws(ServiceError) {
        let cursor = try call.open(version: Self.version) { reader -> ListingCursor? in
            guard let created = reader.take(UInt64.self), let id = reader.take(bytes: 16), let uuid = UUID128(bytes: id)
            else { return nil }
            return ListingCursor(createdMilliseconds: created, id: uuid)
        }
        guard let cursor else { return nil }
        self = cursor
    }

    static func < (one: ListingCursor, other: ListingCursor) -> Bool {
        (one.createdMilliseconds, one.id) < (other.createdMilliseconds, other.id)
    }
}

/// What several shards list, each in the order of the places, merged into one page: no more of it than is asked for, nor than fits.
struct MergedPage<Item> {
    /// Of an empty page.
    private let room: PageRoom
    private var found: [(place: ListingCursor, size: Int, item: Item)] = []
    /// Where the first shard ends that has more: what comes behind is not known yet.
    private var end: ListingCursor?

    /// - Parameter count: items at most.
    init(count: Int) { room = PageRoom(items: count, bytes: Limits.pageBytes) }

    /// - Parameters:
    ///   - items: a shard's next ones, up to the one that uses up the page's room, if there are as many.
    ///   - size: bytes of an item.
    mutating func add(_ items: [Item], place: (Item) -> ListingCursor, size: (Item) -> Int) {
        var room = room
        for item in items {
            found.append((place(item), size(item), item))
            room.take(size(item))
        }
        guard room.isUsedUp, let last = found.last?.place else { return }
        end = min(end ?? last, last)
    }

    /// The page, and the place of its last item if there may be more.
    func take() -> (items: [Item], last: ListingCursor?) {
        var (page, room) = ([Item](), room)
        for (place, size, item) in found.sorted(by: { $0.place < $1.place }) {
            page.append(item)
            room.take(size)
            if room.isUsedUp || place == end { return (page, place) }
        }
        return (page, nil)
    }
}

extension Wire.PageRequest? {
    /// How many items the caller wants: 100 where it does not say.
    func itemCount(atMost most: Int = Limits.pageItems) throws(ServiceError) -> Int {
        let limit = self?.limit ?? 0
        guard limit <= most else {
            throw ServiceError(.invalidArgument, "a page holds at most \(most) items, not \(limit)")
        }
        return limit == 0 ? 100 : Int(limit)
    }

    /// What a page costs a worker, in bytes that it would hash as fast.
    func cost(atMost most: Int = Limits.pageItems, each bytes: Int) -> Int {
        let limit = Int(self?.limit ?? 0)
        return (limit == 0 ? 100 : min(limit, most)) * bytes
    }
}

/// Where ListBlocks, ListChangedBlocks and MissingBlocks go on.
enum BlockCursor {
    private static let version: UInt8 = 2

    static func token(_ chunk: ChunkIndex, in call: PagedCall) -> [UInt8] {
        call.seal(version: version) { $0.put(chunk.rawValue) }
    }

    /// Nil for the first page.
    static func chunk(_ call: PagedCall) throws(ServiceError) -> ChunkIndex? {
        try call.open(version: version) { $0.take(UInt64.self).map { ChunkIndex($0) } }
    }
}
