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
                reader.take(UInt32.self) == CRC32C.extend(0, UnsafeRawBufferPointer(rebasing: bytes[0..<25])), reader.isAtEnd,
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
    func itemCount() throws(ServiceError) -> Int {
        let limit = self?.limit ?? 0
        guard limit <= Limits.pageItems else {
            throw ServiceError(.invalidArgument, "a page holds at most \(Limits.pageItems) items, not \(limit)")
        }
        return limit == 0 ? 100 : Int(limit)
    }

    var token: [UInt8] { self?.pageToken ?? [] }
}
