import Testing

@testable import CairnCore

@Suite struct ChecksumTests {
    @Test func knownValues() {
        let digits = Array("123456789".utf8)
        digits.withUnsafeBytes {
            #expect(CRC32C.extend(0, $0) == 0xe306_9283)
            #expect(CRC32C.portable($0) == 0xe306_9283)
            #expect(CRC32.extend(0, $0) == 0xcbf4_3926)
        }
    }

    @Test(arguments: [0, 1, 7, 8, 4095, 12287, 12288, 12289, 24576, 70001])
    func hardwareAgreesWithTheTables(count: Int) {
        var random = SystemRandomNumberGenerator()
        let bytes = (0..<count).map { _ in UInt8.random(in: .min ... .max, using: &random) }
        bytes.withUnsafeBytes { all in
            #expect(CRC32C.extend(0, all) == CRC32C.portable(all))
            let half = count / 2
            let first = CRC32C.extend(0, UnsafeRawBufferPointer(rebasing: all[0..<half]))
            let rest = UnsafeRawBufferPointer(rebasing: all[half...])
            #expect(CRC32C.extend(first, rest) == CRC32C.extend(0, all))
            #expect(CRC32C.joined(first, CRC32C.extend(0, rest), count: rest.count) == CRC32C.extend(0, all))
        }
    }

    @Test func lz4ComesBackAndNeverWritesBeyond() throws {
        let source = (0..<65536).map { UInt8(truncatingIfNeeded: $0 / 7) }
        var packed = [UInt8](repeating: 0, count: LZ4.bound(source.count))
        let count = try #require(
            source.withUnsafeBytes { from in packed.withUnsafeMutableBytes { LZ4.compress(from, into: $0) } }
        )
        packed.removeSubrange(count...)
        var back = [UInt8](repeating: 0xaa, count: source.count + 8)
        let exact = packed.withUnsafeBytes { from in
            back.withUnsafeMutableBytes {
                LZ4.decompress(from, into: UnsafeMutableRawBufferPointer(rebasing: $0[0..<source.count]))
            }
        }
        #expect(exact && Array(back.prefix(source.count)) == source && back.suffix(8).allSatisfy { $0 == 0xaa })
        let short = packed.withUnsafeBytes { from in
            back.withUnsafeMutableBytes {
                LZ4.decompress(from, into: UnsafeMutableRawBufferPointer(rebasing: $0[0..<source.count - 1]))
            }
        }
        #expect(!short)
    }
}
