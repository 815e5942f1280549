import CCairnSHA256
import CairnCore
import Testing

@testable import CairnCrypto

@Suite struct DigestTests {
    // FIPS 180-4's examples, and the empty message.
    static let sha256Vectors: [(message: [UInt8], digest: String)] = [
        ([], "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        (Array("abc".utf8), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (
            Array("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq".utf8),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
        ),
        (Array(repeating: 0x61, count: 1_000_000), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"),
    ]

    @Test(arguments: sha256Vectors.indices) func sha256(of index: Int) {
        let (message, digest) = Self.sha256Vectors[index]
        #expect(SHA256.hash(message).description == digest)
        var hasher = SHA256Hasher()
        for start in stride(from: 0, to: message.count, by: 4097) {
            hasher.update(Array(message[start..<min(start + 4097, message.count)]))
        }
        #expect(hasher.finish().description == digest)
    }

    @Test(arguments: [0, 1, 511, 512, 65535, 65536, 65537, (4 << 20) - 512]) func paddingIsZeros(count: Int) {
        let content: [UInt8] = Array("content".utf8)
        let whole = SHA256.hash(content + Array(repeating: 0, count: count))
        #expect(content.withUnsafeBytes { SHA256.hash($0, padding: count) } == whole)
        var hasher = SHA256Hasher()
        hasher.update(content)
        hasher.update(zeros: count)
        #expect(hasher.finish() == whole)
    }

    /// Every way that this processor has, and none, against OpenSSL: any number at once, whole and shorter ones among each other.
    @Test(arguments: Set([0, 1, 2, 3].map { $0 & cairn_sha256_ways() }).sorted())
    func manyAtOnce(ways: UInt32) {
        let content = (0..<100_000).map { UInt8(truncatingIfNeeded: $0 &* $0 &+ $0 >> 7) }
        content.withUnsafeBytes { content in
            for bytes in [64, 128, 192, 4096, 65536] {
                for count in 0...(bytes > 4096 ? 18 : 40) {
                    let chunks = (0..<count).map { index in
                        let start = index * 67 % 30_000
                        let isShort = index % 11 == 5
                        return UnsafeRawBufferPointer(
                            rebasing: content[start..<start + (isShort ? bytes - 13 - index : bytes)]
                        )
                    }
                    let expected = chunks.map { SHA256.hash($0, padding: bytes - $0.count) }
                    #expect(
                        SHA256.hash(each: chunks, paddedTo: bytes, by: ways) == expected,
                        "\(count) of \(bytes) bytes"
                    )
                    #expect(SHA256.hash(each: chunks, paddedTo: bytes) == expected)
                }
            }
        }
        let nothing = UnsafeRawBufferPointer(start: nil, count: 0)
        #expect(SHA256.hash(each: [nothing], paddedTo: 0, by: ways) == [SHA256.hash([])])
        #expect(
            SHA256.hash(each: [nothing, nothing], paddedTo: 64, by: ways)
                == Array(repeating: SHA256.hash(Array(repeating: 0, count: 64)), count: 2)
        )
    }

    /// 16 streams of 64 KiB are a multiple of a page apart: all in one set of the cache.
    @Test func manyOfOneBuffer() {
        let size = 65536
        let content = (0..<64 * size / 8).flatMap { word in
            withUnsafeBytes(of: UInt64(word) &* 0x9e37_79b9_7f4a_7c15) { Array($0) }
        }
        content.withUnsafeBytes { content in
            let chunks = (0..<64).map { UnsafeRawBufferPointer(rebasing: content[$0 * size..<($0 + 1) * size]) }
            #expect(SHA256.hash(each: chunks, paddedTo: size) == chunks.map { SHA256.hash($0) })
        }
    }

    @Test func emptyBufferWithoutAddress() {
        let nothing = UnsafeRawBufferPointer(start: nil, count: 0)
        #expect(SHA256.hash(nothing).description == Self.sha256Vectors[0].digest)
        #expect(SHA256.hash(nothing, padding: 4096) == SHA256.hash(Array(repeating: 0, count: 4096)))
    }

    /// RFC 1321, A.5. An MD5 between two SHA-256 leaves the thread's context in order.
    @Test func md5() {
        let vectors = [
            ("", "d41d8cd98f00b204e9800998ecf8427e"), ("abc", "900150983cd24fb0d6963f7d28e17f72"),
            ("message digest", "f96b697d7cb7938d525a2f31aaf161d0"),
        ]
        for (message, digest) in vectors {
            #expect(Hex.encode(Array(message.utf8).withUnsafeBytes { MD5.hash($0) }) == digest)
            #expect(SHA256.hash(Array("abc".utf8)).description == Self.sha256Vectors[1].digest)
        }
    }

    @Test func manyThreadsAtOnce() async {
        let expected = SHA256.hash(Array(repeating: 7, count: 10_000))
        await withTaskGroup(of: Bool.self) { group in
            for _ in 0..<16 {
                group.addTask {
                    (0..<50).allSatisfy { _ in SHA256.hash(Array(repeating: 7, count: 10_000)) == expected }
                }
            }
            for await right in group { #expect(right) }
        }
    }
}
