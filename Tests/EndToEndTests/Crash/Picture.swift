import Foundation

/// What a sector holds, if it is one of ours: who wrote it when, and for which place. All zeros where nobody did.
struct Cell: Hashable, Sendable, CustomStringConvertible {
    static let zero = Cell(stamp: 0, place: 0)
    /// Writer, life, call: no two calls have the same.
    let stamp: UInt64
    /// The image and sector that it was written for, so that one which strays is known. A chunk named by its token brings
    /// its own along.
    let place: UInt64

    var description: String { stamp == 0 ? "zeros" : "\(String(stamp, radix: 16))@\(String(place, radix: 16))" }
}

/// An image of stamped sectors.
struct Picture: Equatable, Sendable {
    static let sector = 512
    private(set) var cells: [Cell]

    init(sectors: Int) { cells = [Cell](repeating: .zero, count: sectors) }

    /// A sector that is not wholly one cell, in what was read.
    struct Torn: Error { let sector: Int }

    init(_ bytes: [UInt8]) throws(Torn) {
        let count = bytes.count / Self.sector
        var cells: [Cell] = []
        cells.reserveCapacity(count)
        let torn: Int? = bytes.withUnsafeBytes { raw in
            for index in 0..<count {
                let start = raw.baseAddress! + index * Self.sector
                // The same 16 bytes over and over: each equals the one 16 further on.
                guard memcmp(start, start + 16, Self.sector - 16) == 0 else { return index }
                let stamp = start.loadUnaligned(as: UInt64.self)
                cells.append(
                    Cell(
                        stamp: UInt64(littleEndian: stamp),
                        place: UInt64(littleEndian: (start + 8).loadUnaligned(as: UInt64.self))
                    )
                )
            }
            return nil
        }
        if let torn { throw Torn(sector: torn) }
        self.cells = cells
    }

    mutating func apply(_ changes: [Change]) {
        for change in changes {
            cells.replaceSubrange(change.first..<change.first + change.cells.count, with: change.cells)
        }
    }

    var bytes: [UInt8] { Self.bytes(cells[...]) }

    static func bytes(_ cells: ArraySlice<Cell>) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: cells.count * sector)
        bytes.withUnsafeMutableBytes { raw in
            for (index, cell) in cells.enumerated() where cell != .zero {
                let words = UnsafeMutableRawBufferPointer(rebasing: raw[index * sector..<(index + 1) * sector])
                words.storeBytes(of: cell.stamp.littleEndian, as: UInt64.self)
                words.storeBytes(of: cell.place.littleEndian, toByteOffset: 8, as: UInt64.self)
                for step in [16, 32, 64, 128] { memcpy(words.baseAddress! + step, words.baseAddress!, step) }
                memcpy(words.baseAddress! + 256, words.baseAddress!, 256)
            }
        }
        return bytes
    }

    /// The first sectors that differ, for people.
    func difference(from other: Picture) -> String {
        let places = cells.indices.filter { cells[$0] != other.cells[$0] }
        return "\(places.count) sectors differ: "
            + places.prefix(4).map { "\($0): found \(cells[$0]), not \(other.cells[$0])" }.joined(separator: "; ")
    }
}

/// A piece of a call.
struct Change: Sendable {
    let first: Int
    let cells: [Cell]
}
