/// The messages of the contract (`proto/cairn/v1`) as Swift values, and nothing else: see `Generated/`.
public enum Wire {}

/// A message of the contract. It goes over the wire as protobuf: proto3, with unknown fields skipped.
public protocol WireMessage: Sendable, Hashable {
    /// The message's name in the contract, without its package.
    static var messageName: String { get }

    /// A message with all fields at their defaults.
    init()

    /// Reads a message from a peer's bytes, whatever they hold.
    /// - Parameter budget: the most bytes of memory that reading may take for itself.
    /// - Throws: ``WireError``, whichever case the bytes deserve.
    static func decode(_ bytes: UnsafeRawBufferPointer, budget: Int) throws(WireError) -> Self

    /// Appends the message's encoding. U+0000, which the contract forbids in text, goes out as U+FFFD: check text that
    /// people typed before it comes here.
    func encode(into output: inout [UInt8])
}

extension WireMessage {
    /// Reads a message within ``MessageLimits/decodeBudget``.
    @inlinable public static func decode(_ bytes: UnsafeRawBufferPointer) throws(WireError) -> Self {
        try decode(bytes, budget: MessageLimits.decodeBudget)
    }

    /// Reads a message within ``MessageLimits/decodeBudget``.
    @inlinable public static func decode(_ bytes: [UInt8]) throws(WireError) -> Self {
        let result = bytes.withUnsafeBytes { raw in Result { () throws(WireError) in try decode(raw) } }
        return try result.get()
    }

    /// The message's encoding.
    @inlinable public func encode() -> [UInt8] {
        var output: [UInt8] = []
        encode(into: &output)
        return output
    }
}

/// A message that asks for a call: it knows the call's method and what answers it.
public protocol WireRequest: WireMessage {
    associatedtype Response: WireMessage
    /// The method's fixed number.
    static var method: Wire.Method { get }
}

/// What decoding is held to.
public enum MessageLimits {
    /// Memory for one message while it is read, beside the values. Measured: 4,096 blocks with tokens and checksums take
    /// 1.1 MiB, 16,384 tokens 1.9, a megabyte of chunk placements 3.4; a megabyte of empty blocks would take 76.
    public static let decodeBudget = 8 << 20
}
