import CairnCore
import CairnCrypto
import Foundation
import Testing

/// proto/conformance/seals.json: made by another implementation, for every one.
struct SealConformanceTests {
    private struct File: Decodable {
        let cases: [Case]
    }
    private struct Case: Decodable {
        struct Part: Decodable {
            let offset: UInt64
            let length: UInt64
            let byte: UInt8
        }
        let number: String
        let size: UInt64
        let chunkSize: Int
        let content: [Part]
        let seal: String

        enum CodingKeys: String, CodingKey {
            case number, size, content, seal
            case chunkSize = "chunk_size"
        }
    }

    @Test func seals() throws {
        let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
        let data = try Data(contentsOf: root.appendingPathComponent("proto/conformance/seals.json"))
        let cases = try JSONDecoder().decode(File.self, from: data).cases
        #expect(cases.count >= 8)
        for item in cases {
            let chunkSize = try #require(ChunkSize(bytes: item.chunkSize))
            var builder = SealBuilder(size: item.size, chunkSize: chunkSize)
            var next: UInt64 = 0
            for (index, chunk) in chunks(of: item, chunkSize).sorted(by: { $0.key < $1.key }) {
                let fingerprint = chunk.withUnsafeBytes { SHA256.hash($0) }
                builder.add(zeros: index - next)
                builder.add(fingerprint)
                next = index + 1
            }
            builder.add(zeros: chunkSize.count(for: item.size) - next)
            #expect(Hex.encode(builder.finish().bytes) == item.seal, "\(item.number)")
        }
    }

    /// The chunks that hold content, whole, by index.
    private func chunks(of item: Case, _ chunkSize: ChunkSize) -> [UInt64: [UInt8]] {
        var chunks: [UInt64: [UInt8]] = [:]
        for part in item.content {
            for sector in stride(from: part.offset, to: part.offset + part.length, by: 512) {
                let start = chunkSize.remainder(of: sector)
                chunks[chunkSize.chunk(at: sector).rawValue, default: Array(repeating: 0, count: chunkSize.bytes)]
                    .replaceSubrange(start..<start + 512, with: repeatElement(part.byte, count: 512))
            }
        }
        return chunks
    }
}
