public import CairnCore

/// Data as asked for: what share of its units repeats, and how far LZ4 gets with each. The same plan gives the same bytes
/// everywhere.
///
/// A unit is what the server deduplicates, a chunk; a request that is smaller is one unit. In each 4 KiB page of a unit the
/// first part is noise, which no codec shortens, and the rest one word again and again, which LZ4 shortens to next to nothing.
/// The noise of a page is that of every page under a key of its own, so that no two pages share bytes, in any order.
public struct ContentPlan: Sendable {
    /// Beyond it the noise of a page would be a few words, and the ratio no more exact.
    public static let mostCompression = 20.0
    private static let pageBytes = 4096
    /// On which the right part of noise is found.
    private static let sampleBytes = 128 << 10

    public let unitBytes: Int
    /// All units by distinct units, ≥ 1.
    public let dedup: Double
    /// Bytes by LZ4's bytes, 1–20.
    public let compression: Double
    private let seed: UInt64
    private let noise: [UInt64]
    /// The noisy part of a page, 0–1.
    private var noisyPart = 1.0

    /// - Parameters:
    ///   - unitBytes: a multiple of 512.
    ///   - seed: other seeds give other bytes.
    public init(unitBytes: Int, dedup: Double = 1, compression: Double = 1, seed: UInt64 = 0) throws(BenchError) {
        guard unitBytes >= 512, unitBytes.isMultiple(of: 512) else {
            throw BenchError(.invalid, "requests must be a multiple of 512 bytes")
        }
        guard dedup >= 1, dedup <= 1e6 else { throw BenchError(.invalid, "a dedup ratio is between 1 and 1,000,000") }
        guard compression >= 1, compression <= Self.mostCompression else {
            throw BenchError(.invalid, "a compression ratio is between 1 and \(Self.mostCompression)")
        }
        self.unitBytes = unitBytes
        self.dedup = dedup
        self.compression = compression
        self.seed = Mix.hash(seed)
        noise = (0..<Self.pageBytes / 8).map { Mix.hash(UInt64($0) &+ 0x5EED) }
        if compression > 1 { calibrate() }
    }

    /// Tries how much noise gives the ratio: LZ4 knows best what LZ4 does.
    private mutating func calibrate() {
        let unit = BufferPool.shared.buffer(capacity: unitBytes)
        let target = BufferPool.shared.buffer(capacity: LZ4.bound(unitBytes))
        let units = max(1, Self.sampleBytes / unitBytes)
        var (low, high) = (0.0, 1.0)
        for _ in 0..<12 {
            noisyPart = (low + high) / 2
            var packed = 0
            for number in 0..<UInt64(units) {
                unit.count = min(unitBytes, Self.sampleBytes)
                fill(UnsafeMutableRawBufferPointer(rebasing: unit.memory[0..<unit.count]), unit: number)
                packed += LZ4.compress(unit.bytes, into: target.memory) ?? unit.count
            }
            if Double(units * unit.count) / Double(packed) > compression { low = noisyPart } else { high = noisyPart }
        }
    }

    /// Which content a unit has: equal identities, equal bytes. Of the first `n` units ⌈n / dedup⌉ have one of their own.
    public func identity(ofUnit unit: UInt64) -> UInt64 {
        let before = UInt64((Double(unit) / dedup).rounded(.up))
        let after = UInt64((Double(unit + 1) / dedup).rounded(.up))
        return after > before ? before : Mix.hash(unit ^ seed) % max(before, 1)
    }

    /// Fills all of a buffer's content with units from `first` on.
    /// - Returns: the unit behind them.
    @discardableResult
    public func fill(_ buffer: Buffer, first: UInt64) -> UInt64 {
        var unit = first
        for start in stride(from: 0, to: buffer.count, by: unitBytes) {
            let end = min(start + unitBytes, buffer.count)
            fill(UnsafeMutableRawBufferPointer(rebasing: buffer.memory[start..<end]), unit: unit)
            unit += 1
        }
        return unit
    }

    /// Writes a unit's bytes.
    /// - Parameter target: at most ``unitBytes``, a multiple of 8: of a shorter one as many pages as fit.
    public func fill(_ target: UnsafeMutableRawBufferPointer, unit: UInt64) {
        let identity = Mix.hash(identity(ofUnit: unit) ^ seed)
        let words = target.bindMemory(to: UInt64.self)
        noise.withUnsafeBufferPointer { noise in
            var page = 0
            while page < words.count {
                let length = min(noise.count, words.count - page)
                let key = Mix.hash(identity &+ UInt64(page))
                // Whole words: of some pages one more than of others.
                let dither = Double(key >> 11) / Double(UInt64(1) << 53)
                let noisy = min(length, max(1, Int(Double(length) * noisyPart + dither)))
                for index in 0..<noisy { words[page + index] = noise[index] ^ key }
                for index in noisy..<length { words[page + index] = key }
                page += length
            }
        }
    }
}

/// SplitMix64's finishing step: equal numbers everywhere, that look like chance.
enum Mix {
    static func hash(_ value: UInt64) -> UInt64 {
        var value = value &+ 0x9E37_79B9_7F4A_7C15
        value = (value ^ value >> 30) &* 0xBF58_476D_1CE4_E5B9
        value = (value ^ value >> 27) &* 0x94D0_49BB_1331_11EB
        return value ^ value >> 31
    }
}
