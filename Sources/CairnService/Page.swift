import CairnCore
import CairnWire

/// A place in a listing that is ordered by creation time, then ID: the content of a page token.
///
/// The token is the two values with a version byte and a CRC, so that a token of something else is refused and not misread.
struct ListingCursor: Sendable, Equatable {
    let createdMilliseconds: UInt64
    let id: UUID128

    var token: [UInt8] {
        var writer = ByteWriter(capacity: 29)
        writer.put(UInt8(1))
        writer.put(createdMilliseconds)
        writer.put(bytes: id.bytes)
        writer.put(writer.bytes.withUnsafeBytes { CRC32C.extend(0, $0) })
        return writer.bytes
    }

    init(createdMilliseconds: UInt64, id: UUID128) {
        self.createdMilliseconds = createdMilliseconds
        self.id = id
    }

    /// Nil for an empty token; throws INVALID_ARGUMENT for one that no listing gave.
    init?(token: [UInt8]) throws(ServiceError) {
        guard !token.isEmpty else { return nil }
        let parsed = token.withUnsafeBytes { bytes -> ListingCursor? in
            var reader = ByteReader(bytes)
            guard reader.take(UInt8.self) == 1, let created = reader.take(UInt64.self), let id = reader.take(bytes: 16),
                reader.take(UInt32.self) == CRC32C.extend(0, UnsafeRawBufferPointer(rebasing: bytes[0..<25])),
                reader.isAtEnd,
                let uuid = UUID128(bytes: id)
            else { return nil }
            return ListingCursor(createdMilliseconds: created, id: uuid)
        }
        guard let parsed else { throw ServiceError(.invalidArgument, "page_token is not one that this listing gave") }
        self = parsed
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

/// The page token of ListBlocks and ListChangedBlocks: the chunk to go on with, a CRC behind it.
enum BlockCursor {
    static func token(_ chunk: ChunkIndex) -> [UInt8] {
        var writer = ByteWriter(capacity: 13)
        writer.put(UInt8(2))
        writer.put(chunk.rawValue)
        writer.put(writer.bytes.withUnsafeBytes { CRC32C.extend(0, $0) })
        return writer.bytes
    }

    /// Nil for an empty token; throws INVALID_ARGUMENT for one that no listing gave.
    static func chunk(_ token: [UInt8]) throws(ServiceError) -> ChunkIndex? {
        guard !token.isEmpty else { return nil }
        let chunk = token.withUnsafeBytes { bytes -> ChunkIndex? in
            var reader = ByteReader(bytes)
            guard bytes.count == 13, reader.take(UInt8.self) == 2, let chunk = reader.take(UInt64.self),
                reader.take(UInt32.self) == CRC32C.extend(0, UnsafeRawBufferPointer(rebasing: bytes[0..<9]))
            else { return nil }
            return ChunkIndex(chunk)
        }
        guard let chunk else { throw refused }
        return chunk
    }

    static let refused = ServiceError(.invalidArgument, "page_token is not one that this listing gave")
}
