import CairnCore
import Testing

@testable import CairnBench

struct ContentPlanTests {
    private func bytes(_ plan: ContentPlan, _ unit: UInt64) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: plan.unitBytes)
        bytes.withUnsafeMutableBytes { plan.fill($0, unit: unit) }
        return bytes
    }

    private func lz4Bytes(_ bytes: [UInt8]) -> Int {
        var target = [UInt8](repeating: 0, count: LZ4.bound(bytes.count))
        return bytes.withUnsafeBytes { from in target.withUnsafeMutableBytes { LZ4.compress(from, into: $0) } }!
    }

    @Test(arguments: [1, 1.2, 1.8, 2, 3, 5, 10, 20], [4096, 65536, 1 << 20])
    func lz4GetsAsFarAsAsked(ratio: Double, unit: Int) throws {
        let plan = try ContentPlan(unitBytes: unit, compression: ratio)
        let packed = (0..<UInt64(max(2, (256 << 10) / unit))).map { lz4Bytes(bytes(plan, $0)) }
        let reached = Double(unit * packed.count) / Double(packed.reduce(0, +))
        #expect(abs(reached / ratio - 1) < 0.03, "asked for \(ratio), got \(reached)")
    }

    @Test(arguments: [1, 1.25, 2, 4, 10])
    func unitsRepeatAsOftenAsAsked(ratio: Double) throws {
        let plan = try ContentPlan(unitBytes: 4096, dedup: ratio, compression: 2, seed: 3)
        let count = 2000
        // By their bytes, not only by what the plan says of them.
        let distinct = Set((0..<UInt64(count)).map { bytes(plan, $0) }).count
        #expect(distinct == Int((Double(count) / ratio).rounded(.up)))
    }

    @Test func whatRepeatsComesFromAllThatWasSentBefore() throws {
        let plan = try ContentPlan(unitBytes: 4096, dedup: 2)
        let repeated = (1000..<UInt64(2000)).map { plan.identity(ofUnit: $0) }.filter { $0 < 500 }
        // Half of the 1,000 units repeat one; of those before them a third to a half are among the first 500.
        #expect(repeated.count > 200)
    }

    @Test func noPageOfOneUnitIsInAnother() throws {
        let plan = try ContentPlan(unitBytes: 65536)
        let pages = (0..<UInt64(64)).flatMap { unit in
            let unit = bytes(plan, unit)
            return stride(from: 0, to: unit.count, by: 512).map { Array(unit[$0..<$0 + 512]) }
        }
        #expect(Set(pages).count == pages.count)
        let other = try ContentPlan(unitBytes: 65536, seed: 1)
        #expect(bytes(plan, 0) == bytes(plan, 0) && bytes(plan, 0) != bytes(other, 0))
    }

    @Test func smallAndOddUnitsAreFilled() throws {
        for unit in [512, 4608, 98304] {
            let plan = try ContentPlan(unitBytes: unit, compression: 2)
            #expect(bytes(plan, 5).suffix(8) != ArraySlice(repeating: 0, count: 8))
            #expect(lz4Bytes(bytes(plan, 5)) < unit)
        }
        for wrong in [0, 511, 1000] { #expect(throws: BenchError.self) { try ContentPlan(unitBytes: wrong) } }
        #expect(throws: BenchError.self) { try ContentPlan(unitBytes: 512, dedup: 0.5) }
        #expect(throws: BenchError.self) { try ContentPlan(unitBytes: 512, compression: 21) }
    }
}
