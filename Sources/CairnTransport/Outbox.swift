internal import CairnCore
internal import Collections

/// What a connection still has to encrypt, in order: small bytes gathered together, large buffers by reference.
struct Outbox {
    /// Slices below this are copied behind the small bytes before them: one TLS record instead of two.
    static let copyBytes = 4 << 10
    /// Small bytes are gathered up to one TLS record.
    private static let gatherBytes = 16 << 10

    private enum Item {
        case bytes([UInt8])
        case slice(BufferSlice)
        var count: Int {
            switch self {
            case .bytes(let bytes): bytes.count
            case .slice(let slice): slice.count
            }
        }
    }
    private var items = Deque<Item>()
    /// How much of the first item is done.
    private var position = 0
    /// Small bytes that came last; new ones join them.
    private(set) var tail: [UInt8] = []

    var isEmpty: Bool { items.isEmpty && tail.isEmpty }

    /// Takes memory for the tail from `spare`, where the last user left it.
    mutating func borrow(_ spare: inout [UInt8]) {
        guard tail.capacity == 0 else { return }
        swap(&tail, &spare)
    }

    mutating func append(_ fill: (inout [UInt8]) -> Void) {
        if tail.count >= Outbox.gatherBytes { sealTail() }
        fill(&tail)
    }

    mutating func append(_ slice: BufferSlice) {
        guard slice.count > 0 else { return }
        guard slice.count > Outbox.copyBytes else {
            append { $0.append(contentsOf: slice.bytes) }
            return
        }
        sealTail()
        items.append(.slice(slice))
    }

    private mutating func sealTail() {
        guard !tail.isEmpty else { return }
        items.append(.bytes(tail))
        tail = []
    }

    /// Lets `body` take bytes from the front: it gives the number that it took; 0 or less than offered ends the walk.
    mutating func drain<E>(_ body: (UnsafeRawBufferPointer) throws(E) -> Int) throws(E) {
        while let first = items.first {
            let taken: Int
            switch first {
            case .bytes(let bytes):
                taken = try bytes.withUnsafeBytes { raw in
                    Result { () throws(E) in try body(UnsafeRawBufferPointer(rebasing: raw[position...])) }
                }.get()
            case .slice(let slice):
                taken = try body(UnsafeRawBufferPointer(rebasing: slice.bytes[position...]))
            }
            position += taken
            guard position == first.count else { return }
            items.removeFirst()
            position = 0
        }
        guard !tail.isEmpty else { return }
        position += try tail.withUnsafeBytes { raw in
            Result { () throws(E) in try body(UnsafeRawBufferPointer(rebasing: raw[position...])) }
        }.get()
        guard position == tail.count else {
            // Half done: it is an item like any other from now on.
            sealTail()
            return
        }
        tail.removeAll(keepingCapacity: true)
        position = 0
    }

    /// Gives the tail's memory back to `spare` when nothing is left to send.
    mutating func giveBack(_ spare: inout [UInt8]) {
        guard isEmpty, tail.capacity > 0 else { return }
        if spare.capacity == 0, tail.capacity <= 256 << 10 { swap(&tail, &spare) }
        tail = []
        if items.isEmpty { items = [] }
    }
}
