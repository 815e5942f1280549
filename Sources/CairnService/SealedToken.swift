import CairnCore

/// Bytes that clients hand back as they got them: page tokens, and the addresses of snapshots.
///
///     version  1 byte
///     content  the fields, little-endian
///     CRC-32C  4 bytes, over all that is before, and over what the token is good for
///
/// So a token of something else is refused and not misread. It is no secret and no permission: what it names is looked up for the
/// caller's account.
enum SealedToken {
    /// - Parameter scope: the checksum of what the token is good for; with another it does not open.
    static func seal(version: UInt8, scope: UInt32 = 0, _ put: (inout ByteWriter) -> Void) -> [UInt8] {
        var writer = ByteWriter(capacity: 48)
        writer.put(version)
        put(&writer)
        writer.put(writer.bytes.withUnsafeBytes { CRC32C.extend(scope, $0) })
        return writer.bytes
    }

    /// What `take` makes of the content, all of which it must take; nil for what ``seal(version:_:)`` did not give.
    static func open<Content>(
        _ token: [UInt8],
        version: UInt8,
        scope: UInt32 = 0,
        _ take: (inout ByteReader) -> Content?
    ) -> Content? {
        token.withUnsafeBytes { bytes in
            let sealed = UnsafeRawBufferPointer(rebasing: bytes.dropLast(4))
            var (reader, checksum) = (ByteReader(sealed), ByteReader(UnsafeRawBufferPointer(rebasing: bytes.suffix(4))))
            guard checksum.take(UInt32.self) == CRC32C.extend(scope, sealed), reader.take(UInt8.self) == version,
                let content = take(&reader), reader.isAtEnd
            else { return nil }
            return content
        }
    }
}
