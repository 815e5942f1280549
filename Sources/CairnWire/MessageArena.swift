internal import CProtobufC
internal import Glibc

/// The memory of one message between bytes and Swift values: allocated by counting up, given back all at once.
///
/// Each allocation is preceded by its size in 8 bytes: protobuf-c keeps no length of a string, and so this is how one
/// with a zero byte inside is told from a shorter one.
final class MessageArena {
    /// Kept from message to message; what goes beyond is given back after each.
    private static let firstBlockBytes = 64 << 10
    private static let sizeBytes = MemoryLayout<Int>.size

    private var blocks: [UnsafeMutableRawBufferPointer]
    /// The first of them, and the last.
    private let first: UnsafeMutableRawBufferPointer
    private var block: UnsafeMutableRawBufferPointer
    /// Bytes taken of it.
    private var used = 0
    /// Bytes of all earlier blocks.
    private var earlier = 0
    private var budget = Int.max
    private(set) var isOverBudget = false
    private var isInUse = false
    /// What errors name.
    private var messageName = ""
    /// Gives protobuf-c memory out of this arena; never frees.
    let allocator: UnsafeMutablePointer<ProtobufCAllocator>

    private init() {
        first = .allocate(byteCount: MessageArena.firstBlockBytes, alignment: 16)
        block = first
        blocks = [first]
        allocator = .allocate(capacity: 1)
        allocator.initialize(
            to: ProtobufCAllocator(
                alloc: { arena, size in Unmanaged<MessageArena>.fromOpaque(arena!).takeUnretainedValue().allocate(size)
                },
                free: { _, _ in },
                allocator_data: nil
            )
        )
        allocator.pointee.allocator_data = Unmanaged.passUnretained(self).toOpaque()
    }

    deinit {
        for block in blocks { block.deallocate() }
        allocator.deallocate()
    }

    // MARK: One arena for each thread

    // Safety: written once, before its first use.
    private static let key: pthread_key_t = {
        var key = pthread_key_t()
        let status = pthread_key_create(&key) { Unmanaged<MessageArena>.fromOpaque($0!).release() }
        precondition(status == 0, "no thread-specific key left")
        return key
    }()

    /// Runs `body` with this thread's arena, empty; everything in it is gone afterwards.
    /// - Parameter budget: the most bytes that the arena may hold.
    static func withArena<Result>(
        for messageName: String,
        budget: Int,
        _ body: (MessageArena) throws(WireError) -> Result
    ) throws(WireError) -> Result {
        let arena: MessageArena
        if let known = pthread_getspecific(key) {
            arena = Unmanaged<MessageArena>.fromOpaque(known).takeUnretainedValue()
        } else {
            arena = MessageArena()
            pthread_setspecific(key, Unmanaged.passRetained(arena).toOpaque())
        }
        precondition(!arena.isInUse, "a message is coded within another's coding")
        arena.isInUse = true
        arena.budget = budget
        arena.messageName = messageName
        defer { arena.reset() }
        return try body(arena)
    }

    private func reset() {
        if block.baseAddress != first.baseAddress {
            for block in blocks.dropFirst() { block.deallocate() }
            blocks.removeSubrange(1...)
            block = first
            earlier = 0
        }
        used = 0
        isOverBudget = false
        isInUse = false
    }

    // MARK: Memory

    /// Memory for `size` bytes, aligned to 8; nil beyond the budget.
    private func allocate(_ size: Int) -> UnsafeMutableRawPointer? {
        // What protobuf-c asks for is bounded by the message's length: far from overflow. A negative size is none.
        guard size >= 0, size <= budget else { return refuse() }
        let need = MessageArena.sizeBytes + (size + 7) & ~7
        if used + need > block.count {
            guard earlier + used + need <= budget else { return refuse() }
            addBlock(atLeast: need)
        }
        guard earlier + used + need <= budget else { return refuse() }
        let place = block.baseAddress! + used
        used += need
        place.storeBytes(of: size, as: Int.self)
        return place + MessageArena.sizeBytes
    }

    private func refuse() -> UnsafeMutableRawPointer? {
        isOverBudget = true
        return nil
    }

    private func addBlock(atLeast need: Int) {
        earlier += used
        used = 0
        block = .allocate(byteCount: max(need, min(block.count * 2, 4 << 20)), alignment: 16)
        blocks.append(block)
    }

    private func owns(_ pointer: UnsafeRawPointer) -> Bool {
        blocks.contains {
            pointer >= UnsafeRawPointer($0.baseAddress!) && pointer < UnsafeRawPointer($0.baseAddress! + $0.count)
        }
    }

    /// Memory for `count` values, not initialized. Only for encoding, which has no budget.
    func room<Value>(for _: Value.Type, count: Int = 1) -> UnsafeMutablePointer<Value> {
        guard let raw = allocate(MemoryLayout<Value>.stride * count) else {
            preconditionFailure("encoding takes as much memory as the message has")
        }
        return raw.bindMemory(to: Value.self, capacity: count)
    }

    // MARK: From C to Swift

    /// The text of a string that protobuf-c made in this arena, or of its shared empty string.
    func text(_ string: UnsafeMutablePointer<CChar>?) throws(WireError) -> String {
        guard let string else { return "" }
        let raw = UnsafeRawPointer(string)
        // protobuf-c's shared empty string stands for an absent one, and is the only one outside the arena.
        if string.pointee == 0, !owns(raw) { return "" }
        let count = (raw - MessageArena.sizeBytes).load(as: Int.self) - 1
        let bytes = UnsafeBufferPointer(start: raw.assumingMemoryBound(to: UInt8.self), count: count)
        guard strlen(string) == count, let text = String(validating: bytes, as: UTF8.self) else {
            throw .invalidText(message: messageName)
        }
        return text
    }

    func bytes(_ binary: ProtobufCBinaryData) -> [UInt8] {
        Array(UnsafeBufferPointer(start: binary.data, count: binary.len))
    }

    // MARK: From Swift to C

    func cString(_ text: String) -> UnsafeMutablePointer<CChar> {
        var text = text
        if text.withUTF8({ $0.contains(0) }) { text.replace("\0", with: "\u{fffd}") }
        return text.withUTF8 { bytes in
            let copy = room(for: CChar.self, count: bytes.count + 1)
            UnsafeMutableRawBufferPointer(start: copy, count: bytes.count).copyBytes(from: bytes)
            copy[bytes.count] = 0
            return copy
        }
    }

    func binary(_ bytes: [UInt8]) -> ProtobufCBinaryData {
        guard !bytes.isEmpty else { return ProtobufCBinaryData(len: 0, data: nil) }
        let copy = room(for: UInt8.self, count: bytes.count)
        copy.initialize(from: bytes, count: bytes.count)
        return ProtobufCBinaryData(len: bytes.count, data: copy)
    }

    func array<Value, Element>(_ values: [Value], _ element: (Value) -> Element) -> UnsafeMutablePointer<Element>? {
        guard !values.isEmpty else { return nil }
        let array = room(for: Element.self, count: values.count)
        for (index, value) in values.enumerated() { (array + index).initialize(to: element(value)) }
        return array
    }

    func build<Message: CodedMessage>(_ message: Message) -> UnsafeMutablePointer<Message.C> {
        let c = room(for: Message.C.self)
        Message.initialize(c)
        message.fill(c, in: self)
        return c
    }
}
