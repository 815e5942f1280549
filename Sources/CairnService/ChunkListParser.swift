import CairnCore
import CairnWire

/// Takes an encoded `ChunkList` apart as its bytes come, in pieces of any size: an item may begin in one chunk and end in the
/// next (SPEC S5). Zero bytes between items are padding: chunks are padded with zeros, and no field begins with one.
///
/// Pure: bytes in, placements out. Holds one item's bytes at most.
struct ChunkListParser: Sendable {
    /// The longest item: offset and token, and room for fields that are not known yet.
    static let itemBytes: UInt64 = 1024

    private enum State {
        /// Between fields: a tag begins, or padding.
        case boundary
        case tag
        /// The length of a field: an item's, or one that is skipped.
        case length(isItem: Bool)
        case skipVarint
        case skip(left: UInt64)
        case item(left: UInt64)
    }
    private var state = State.boundary
    /// The varint that is being read.
    private var value: UInt64 = 0
    private var shift: UInt64 = 0
    private var item: [UInt8] = []
    /// Items taken so far.
    private(set) var count = 0

    /// Whether the bytes so far end between two items.
    var isComplete: Bool { if case .boundary = state { true } else { false } }

    /// Takes more bytes, and gives the items that end in them to `body`.
    /// - Throws: INVALID_ARGUMENT naming the item.
    mutating func take(_ bytes: UnsafeRawBufferPointer, _ body: (Wire.ChunkPlacement) throws(ServiceError) -> Void)
        throws(ServiceError)
    {
        var position = 0
        while position < bytes.count {
            switch state {
            case .boundary:
                if bytes[position] == 0 {
                    position += 1
                } else {
                    state = .tag
                }
            case .tag, .length, .skipVarint:
                try takeVarint(bytes[position])
                position += 1
            case .skip(let left):
                let count = min(left, UInt64(bytes.count - position))
                position += Int(count)
                state = count == left ? .boundary : .skip(left: left - count)
            case .item(let left):
                let count = min(left, UInt64(bytes.count - position))
                item.append(contentsOf: bytes[position..<position + Int(count)])
                position += Int(count)
                state = .item(left: left - count)
                if count == left { try endItem(body) }
            }
        }
    }

    private mutating func takeVarint(_ byte: UInt8) throws(ServiceError) {
        guard shift < 63 || byte <= 1 else { throw malformed("a number is too large") }
        value |= UInt64(byte & 0x7f) << shift
        shift += 7
        guard byte < 0x80 else { return }
        let number = value
        (value, shift) = (0, 0)
        switch state {
        case .tag: state = try field(tag: number)
        case .length(isItem: true):
            guard number <= Self.itemBytes else { throw malformed("it has \(number) bytes") }
            item = []
            state = .item(left: number)
        case .length(isItem: false): state = .skip(left: number)
        default: state = .boundary
        }
    }

    private func field(tag: UInt64) throws(ServiceError) -> State {
        guard tag >> 3 > 0 else { throw malformed("a field has number 0") }
        switch (tag >> 3, tag & 7) {
        case (1, 2): return .length(isItem: true)
        case (1, _): throw malformed("it is no message")
        case (_, 0): return .skipVarint
        case (_, 1): return .skip(left: 8)
        case (_, 2): return .length(isItem: false)
        case (_, 5): return .skip(left: 4)
        default: throw malformed("a field has wire type \(tag & 7)")
        }
    }

    private mutating func endItem(_ body: (Wire.ChunkPlacement) throws(ServiceError) -> Void) throws(ServiceError) {
        let placement: Wire.ChunkPlacement
        do throws(WireError) { placement = try Wire.ChunkPlacement.decode(item) } catch { throw malformed("\(error)") }
        state = .boundary
        count += 1
        try body(placement)
    }

    private func malformed(_ why: String) -> ServiceError {
        ServiceError(.invalidArgument, "item \(count) of the encoded chunk list: \(why)", blockIndex: count)
    }
}
