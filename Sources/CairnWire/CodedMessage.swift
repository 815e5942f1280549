internal import CProtobufC

/// A message that is coded by protobuf-c: what the generated code supplies for each.
protocol CodedMessage: WireMessage {
    /// The C struct that protobuf-c reads and writes. It begins with a `ProtobufCMessage`.
    associatedtype C
    /// Fills a C struct with its defaults and its descriptor.
    static func initialize(_ c: UnsafeMutablePointer<C>)
    /// The value of a C struct that protobuf-c made in `arena`.
    init(c: UnsafeMutablePointer<C>, in arena: MessageArena) throws(WireError)
    /// Sets the fields of an initialized C struct; what they point to is made in `arena`.
    func fill(_ c: UnsafeMutablePointer<C>, in arena: MessageArena)
}

extension CodedMessage {
    public static func decode(_ bytes: UnsafeRawBufferPointer, budget: Int) throws(WireError) -> Self {
        try MessageArena.withArena(for: messageName, budget: budget) { arena throws(WireError) in
            let message = protobuf_c_message_unpack(
                descriptor,
                arena.allocator,
                bytes.count,
                bytes.baseAddress?.assumingMemoryBound(to: UInt8.self)
            )
            guard let message else {
                throw arena.isOverBudget ? .overBudget(message: messageName) : .malformed(message: messageName)
            }
            return try Self(c: UnsafeMutableRawPointer(message).assumingMemoryBound(to: C.self), in: arena)
        }
    }

    public func encode(into output: inout [UInt8]) {
        // Encoding throws nothing; the arena's rethrow is typed, so this says so.
        do throws(WireError) {
            try MessageArena.withArena(for: Self.messageName, budget: .max) { arena throws(WireError) in
                let c = UnsafeRawPointer(arena.build(self)).assumingMemoryBound(to: ProtobufCMessage.self)
                let count = protobuf_c_message_get_packed_size(c)
                let packed = arena.room(for: UInt8.self, count: count)
                let written = protobuf_c_message_pack(c, packed)
                precondition(written == count, "protobuf-c wrote \(written) bytes where it announced \(count)")
                output.append(contentsOf: UnsafeBufferPointer(start: packed, count: count))
            }
        } catch {
            preconditionFailure("encoding failed: \(error)")
        }
    }

    /// The C library's description of the message: every initialized struct points to it.
    private static var descriptor: UnsafePointer<ProtobufCMessageDescriptor> {
        withUnsafeTemporaryAllocation(of: C.self, capacity: 1) { room in
            let c = room.baseAddress!
            initialize(c)
            return UnsafeRawPointer(c).assumingMemoryBound(to: ProtobufCMessage.self).pointee.descriptor
        }
    }
}
