import Foundation

/// How much of a level of proof runs, and from which seed: what `tools/torture LEVEL --count N --seed S` asks for, else a few.
///
/// A suite of a level takes its count from ``count(_:otherwise:)``, everything random from ``seed(_:)``, says both when something
/// fails, and ends with ``report(_:_:)``: the line that `tools/torture` makes its table of.
public enum Torture {
    private static let environment = ProcessInfo.processInfo.environment

    /// Whether `tools/torture` runs this level just now.
    public static func isWanted(_ level: String) -> Bool { environment["CAIRN_TORTURE_LEVEL"] == level }

    /// The random-operations models, which share their level's count.
    public enum Model: Int {
        /// What volumes, snapshots and clones hold; of one shard.
        case store = 15
        /// Snapshots in progress; of one shard.
        case progress = 24
        /// The same on volumes of many chunks: few operations, for each reads all of one.
        case seals = 1
        /// Calls of several accounts on several shards.
        case service = 60
    }

    /// A model's part of its level's count; the parts come to 100 percent.
    public static func share(of level: String, _ model: Model, otherwise: Int) -> Int {
        isWanted(level) ? count(level, otherwise: 0) * model.rawValue / 100 : otherwise
    }

    /// - Parameter otherwise: the count of a plain `swift test`: what takes a few seconds.
    public static func count(_ level: String, otherwise: Int) -> Int {
        guard isWanted(level), let count = environment["CAIRN_TORTURE_COUNT"].flatMap({ Int($0) }) else {
            return otherwise
        }
        return count
    }

    /// A new one in each process, unless one is asked for.
    public static func seed(_ level: String) -> UInt64 {
        isWanted(level) ? environment["CAIRN_TORTURE_SEED"].flatMap { UInt64($0) } ?? fresh : fresh
    }

    private static let fresh = UInt64.random(in: 1...1 << 40)

    /// Another number that only one configuration of a level is to be run: `tools/torture model --only 13`.
    public static func only(_ level: String) -> Int? {
        isWanted(level) ? environment["CAIRN_TORTURE_ONLY"].flatMap { Int($0) } : nil
    }

    /// What was done, and what was found: `torture: model operations=100000 failures=0`.
    public static func report(_ level: String, _ facts: KeyValuePairs<String, Int>) {
        print("torture: \(level) " + facts.map { "\($0)=\($1)" }.joined(separator: " "))
    }
}

/// SplitMix64: the same numbers from the same seed, everywhere.
public struct SeededRandom: RandomNumberGenerator, Sendable {
    private var state: UInt64

    public init(seed: UInt64) { state = seed }

    public mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var value = state
        value = (value ^ value >> 30) &* 0xBF58_476D_1CE4_E5B9
        value = (value ^ value >> 27) &* 0x94D0_49BB_1331_11EB
        return value ^ value >> 31
    }

    public mutating func bytes(_ count: Int) -> [UInt8] {
        [UInt8](unsafeUninitializedCapacity: (count + 7) / 8 * 8) { buffer, filled in
            let raw = UnsafeMutableRawBufferPointer(buffer)
            for offset in stride(from: 0, to: count, by: 8) {
                raw.storeBytes(of: next().littleEndian, toByteOffset: offset, as: UInt64.self)
            }
            filled = count
        }
    }

    public mutating func below(_ bound: Int) -> Int { Int(next() % UInt64(bound)) }
    public mutating func chance(_ percent: Int) -> Bool { below(100) < percent }
}
