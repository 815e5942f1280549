import CairnCore

/// Bytes that clients hand back as they got them: page tokens, and the addresses of snapshots.
///
///     version  1 byte
///     content  the fields, little-endian
///     CRC-32C  4 bytes, over all that is before
///
/// So a token of something else is refused and not misread. It is no secret and no permission: what it names is looked up for the
/// caller's account.
enum SealedToken {
    static func seal(version: UInt8, _ put: (inout ByteWriter) -> Void) -> [UInt8] {
        var writer = ByteWriter(capacity: 48)
        writer.put(version)
        put(&writer)
        writer.put(writer.bytes.withUnsafeBytes { CRC32C.extend(0, $0) })
        return writer.bytes
    }

    /// What `take` makes of the content, all of which it must take; nil for what ``seal(version:_:)`` did not give.
    static func open<Content>(
        _ token: [UInt8],
        version: UInt8,
        _ take: (inout ByteReader) -> Content?
    ) -> Content? {
        token.withUnsafeBytes { bytes in
            let sealed = UnsafeRawBufferPointer(rebasing: bytes.dropLast(4))
            var (reader, checksum) = (ByteReader(sealed), ByteReader(UnsafeRawBufferPointer(rebasing: bytes.suffix(4))))
            guard checksum.take(UInt32.self) == CRC32C.extend(0, sealed), reader.take(UInt8.self) == version,
                let content = take(&reader), reader.isAtEnd
            else { return nil }
            return content
        }
    }

    /// The content of a page token; nil for an empty one. Throws INVALID_ARGUMENT for one that no listing gave.
    static func openPage<Content>(
        _ token: [UInt8],
        version: UInt8,
        _ take: (inout ByteReader) -> Content?
    ) throws(ServiceError) -> Content? {
        guard !token.isEmpty else { return nil }
        guard let content = open(token, version: version, take) else { throw refusedPage }
        return content
    }

    static let refusedPage = ServiceError(.invalidArgument, "page_token is not one that this listing gave")
}
