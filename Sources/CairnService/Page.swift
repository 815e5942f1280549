import CairnCore
import CairnWire

/// A place in a listing that is ordered by creation time, then ID: the content of a page token.
struct ListingCursor: Sendable, Equatable {
    private static let version: UInt8 = 1
    let createdMilliseconds: UInt64
    let id: UUID128

    var token: [UInt8] {
        SealedToken.seal(version: Self.version) {
            $0.put(createdMilliseconds)
            $0.put(bytes: id.bytes)
        }
    }

    init(createdMilliseconds: UInt64, id: UUID128) {
        self.createdMilliseconds = createdMilliseconds
        self.id = id
    }

    /// Nil for an empty token; throws INVALID_ARGUMENT for one that no listing gave.
    init?(token: [UInt8]) throws(ServiceError) {
        let cursor = try SealedToken.openPage(token, version: Self.version) { reader -> ListingCursor? in
            guard let created = reader.take(UInt64.self), let id = reader.take(bytes: 16), let uuid = UUID128(bytes: id)
            else { return nil }
            return ListingCursor(createdMilliseconds: created, id: uuid)
        }
        guard let cursor else { return nil }
        self = cursor
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

    var token: [UInt8] { self?.pageToken ?? [] }
}

/// The page token of ListBlocks and ListChangedBlocks: the chunk to go on with.
enum BlockCursor {
    private static let version: UInt8 = 2

    static func token(_ chunk: ChunkIndex) -> [UInt8] {
        SealedToken.seal(version: version) { $0.put(chunk.rawValue) }
    }

    /// Nil for an empty token; throws INVALID_ARGUMENT for one that no listing gave.
    static func chunk(_ token: [UInt8]) throws(ServiceError) -> ChunkIndex? {
        try SealedToken.openPage(token, version: version) { $0.take(UInt64.self).map { ChunkIndex($0) } }
    }
}
