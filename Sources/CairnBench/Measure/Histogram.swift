/// Counts of latencies by log-linear buckets, as HDR histograms have them: a percentile is right to within
/// ``relativeError`` of its value, whatever its size, in memory that does not grow.
///
/// Below 128 ns each value has its own bucket; each power of two above is cut into 128. A bucket answers with its middle.
/// Values above ``limit`` count as it.
public struct Histogram: Sendable, Equatable {
    /// A percentile is at most this part of the true one away from it: half a bucket.
    public static let relativeError = 1.0 / 256
    /// 2^42 ns: 73 minutes, longer than any call may take.
    public static let limit: UInt64 = 1 << 42

    private static let exactBits = 7
    private static let perOctave = 1 << exactBits
    private static let bucketCount = index(limit) + 1

    private var counts: [UInt64]
    public private(set) var count: UInt64 = 0
    /// Nanoseconds, exact; 0 while empty.
    public private(set) var minimum: UInt64 = 0
    /// Nanoseconds, exact; 0 while empty.
    public private(set) var maximum: UInt64 = 0
    /// Of nanoseconds, exact.
    private var sum = 0.0

    public init() { counts = [UInt64](repeating: 0, count: Self.bucketCount) }

    /// - Parameter nanoseconds: what an operation took.
    public mutating func record(_ nanoseconds: UInt64) {
        counts[Self.index(min(nanoseconds, Self.limit))] += 1
        minimum = count == 0 ? nanoseconds : min(minimum, nanoseconds)
        maximum = max(maximum, nanoseconds)
        sum += Double(nanoseconds)
        count += 1
    }

    public mutating func merge(_ other: Histogram) {
        guard other.count > 0 else { return }
        for index in counts.indices { counts[index] += other.counts[index] }
        minimum = count == 0 ? other.minimum : min(minimum, other.minimum)
        maximum = max(maximum, other.maximum)
        sum += other.sum
        count += other.count
    }

    public mutating func reset() {
        guard count > 0 else { return }
        self = Histogram()
    }

    /// Nanoseconds; 0 while empty.
    public var mean: Double { count == 0 ? 0 : sum / Double(count) }

    /// The smallest value that at least `percent` of the samples do not exceed (nearest rank), in nanoseconds; 0 while empty.
    /// - Parameter percent: 0–100.
    public func percentile(_ percent: Double) -> UInt64 {
        guard count > 0 else { return 0 }
        let rank = max(1, UInt64((min(max(percent, 0), 100) / 100 * Double(count)).rounded(.up)))
        guard rank < count else { return maximum }
        var seen: UInt64 = 0
        for (index, inBucket) in counts.enumerated() where inBucket > 0 {
            seen += inBucket
            if seen >= rank { return min(max(Self.middle(index), minimum), maximum) }
        }
        return maximum
    }

    /// How many samples lie in buckets above `nanoseconds`.
    public func count(above nanoseconds: UInt64) -> UInt64 {
        let first = Self.index(min(nanoseconds, Self.limit)) + 1
        return first < counts.count ? counts[first...].reduce(0, +) : 0
    }

    /// The buckets that are not empty, by rising value: their middles in nanoseconds, and their counts.
    public var buckets: [(value: UInt64, count: UInt64)] {
        counts.enumerated().filter { $0.element > 0 }.map { (Self.middle($0.offset), $0.element) }
    }

    private static func index(_ value: UInt64) -> Int {
        guard value >= perOctave else { return Int(value) }
        let exponent = 63 - value.leadingZeroBitCount
        let shift = exponent - exactBits
        return (shift + 1) * perOctave + Int(value >> UInt64(shift)) - perOctave
    }

    private static func middle(_ index: Int) -> UInt64 {
        guard index >= perOctave else { return UInt64(index) }
        let shift = index / perOctave - 1
        let low = UInt64(index % perOctave + perOctave) << UInt64(shift)
        return low + (UInt64(1) << UInt64(shift)) / 2
    }
}
