import CairnTesting
import CairnWire
import SwiftProtobuf

/// A message of the contract that can be made at random.
protocol RandomMessage: WireMessage {
    init(random: inout RandomValues)
}

/// A message of the contract that can be said in swift-protobuf's types: field by field, without any encoding.
protocol OracleConvertible: WireMessage {
    associatedtype Oracle: SwiftProtobuf.Message & Equatable
    var oracle: Oracle { get }
}

/// Values of fields: the edges often, anything sometimes.
struct RandomValues {
    var generator: SeededRandom
    init(seed: UInt64) { generator = SeededRandom(seed: seed) }

    mutating func below(_ bound: Int) -> Int { Int.random(in: 0..<bound, using: &generator) }
    mutating func bool() -> Bool { Bool.random(using: &generator) }
    /// Whether a field that has a default gets another value.
    mutating func isSet() -> Bool { below(4) > 0 }
    mutating func count() -> Int { below(8) == 0 ? below(40) : below(4) }

    mutating func integer<Integer: FixedWidthInteger>() -> Integer {
        switch below(4) {
        case 0: [0, 1, 127, .max, .min][below(5)]
        case 1: Integer(below(100))
        // As many bits as not, so that every length of a varint comes up.
        default: Integer(truncatingIfNeeded: generator.next() >> UInt64(below(64)))
        }
    }

    mutating func bytes() -> [UInt8] {
        let count = [0, 1, 16, 32, 32, 32, below(300)][below(7)]
        return (0..<count).map { _ in UInt8.random(in: 0...255, using: &generator) }
    }

    mutating func text() -> String {
        let letters = ["a", "Z", "0", " ", "-", "é", "ß", "石", "🪨", "\u{1}", "\u{7f}", "e\u{301}", "\u{fffd}"]
        return (0..<count()).map { _ in letters[below(letters.count)] }.joined()
    }

    /// One of the known values, or one that is not known.
    mutating func enumeration<Value: RawRepresentable<Int32>>(_ known: [Value]) -> Value {
        if below(6) == 0 { return Value(rawValue: [Int32.max, Int32.min, -1, 99][below(4)])! }
        return known[below(known.count)]
    }
}
