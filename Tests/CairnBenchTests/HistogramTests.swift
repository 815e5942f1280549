import CairnTesting
import Foundation
import Testing

@testable import CairnBench

struct HistogramTests {
    /// The nearest rank of sorted samples: what a histogram's percentile stands for.
    private func exact(_ sorted: [UInt64], _ percent: Double) -> UInt64 {
        sorted[max(1, Int((percent / 100 * Double(sorted.count)).rounded(.up))) - 1]
    }

    /// Latencies of several shapes and sizes, from nanoseconds to minutes.
    private func samples(_ shape: Int, _ count: Int, _ random: inout SeededRandom) -> [UInt64] {
        (0..<count).map { _ in
            let dice = Double(random.next() >> 11) / Double(UInt64(1) << 53)
            switch shape {
            case 0: return random.next() % 100
            case 1: return random.next() % 1_000_000
            case 2: return UInt64(exp(dice * 25))
            default:
                return random.chance(99) ? 200_000 + random.next() % 50_000 : 1_000_000_000 + random.next() % 1_000_000
            }
        }
    }

    @Test(arguments: 0..<4)
    func percentilesAreRightToTheStatedError(shape: Int) {
        let seed = UInt64.random(in: 1...1 << 40)
        var random = SeededRandom(seed: seed)
        let values = samples(shape, 20_000, &random)
        var histogram = Histogram()
        for value in values { histogram.record(value) }
        let sorted = values.sorted()
        for percent in [0, 0.01, 1, 10, 25, 50, 75, 90, 95, 99, 99.9, 99.99, 100] {
            let (found, right) = (histogram.percentile(percent), exact(sorted, percent))
            let off = abs(Double(found) - Double(right))
            // Half a nanosecond is the integer's own.
            #expect(
                off <= Double(right) * Histogram.relativeError + 0.5,
                "p\(percent): \(found), not \(right); seed \(seed)"
            )
        }
        #expect(histogram.minimum == sorted.first && histogram.maximum == sorted.last)
        let mean = values.reduce(0.0) { $0 + Double($1) } / Double(values.count)
        #expect(abs(histogram.mean - mean) <= mean * 1e-9)
        #expect(histogram.buckets.reduce(0) { $0 + $1.count } == 20_000)
    }

    @Test func mergedHistogramsAreThatOfAllSamples() {
        var random = SeededRandom(seed: 7)
        let parts = (0..<3).map { samples($0 + 1, 1000, &random) }
        var all = Histogram()
        var merged = Histogram()
        for part in parts {
            var one = Histogram()
            for value in part {
                one.record(value)
                all.record(value)
            }
            merged.merge(one)
        }
        merged.merge(Histogram())
        #expect(merged.buckets.elementsEqual(all.buckets, by: ==))
        #expect(merged.minimum == all.minimum && merged.maximum == all.maximum && merged.count == all.count)
        merged.reset()
        #expect(merged == Histogram() && merged.percentile(99) == 0)
    }

    @Test func nothingIsTooSmallOrTooLarge() {
        var histogram = Histogram()
        for value in [0, 1, UInt64.max] { histogram.record(value) }
        #expect(histogram.percentile(1) == 0 && histogram.percentile(50) == 1 && histogram.percentile(100) == .max)
        #expect(histogram.count(above: 1) == 1 && histogram.count(above: .max) == 0)
    }
}
