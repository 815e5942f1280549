import COpenSSL
import Foundation
import Testing

@testable import CairnCrypto

private let processorHasIt: Bool = {
    let facts = (try? String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8)) ?? ""
    let flags = facts.split(separator: "\n").first { $0.hasPrefix("flags") }?.split(separator: " ") ?? []
    let wanted = ["avx512f", "avx512dq", "avx512cd", "avx512bw", "avx512vl", "vaes", "vpclmulqdq"]
    return Set(wanted.map { Substring($0) }).isSubset(of: flags)
}()

/// AES-128-GCM as TLS takes it: that of `CCairnGCM` against published vectors and against OpenSSL's own.
@Suite(.enabled(if: processorHasIt, "this processor has no vector AES"))
struct GCMTests {
    struct Refused: Error {}

    struct Message: Equatable {
        var content: [UInt8]
        var tag: [UInt8]
    }

    /// A cipher with a key, as it is during a TLS session: each message brings its IV, in the calls and the order of OpenSSL's record layer.
    final class Cipher {
        private let context = EVP_CIPHER_CTX_new()!
        private let encrypts: Bool

        init(_ query: String, encrypts: Bool, key: [UInt8]) throws {
            self.encrypts = encrypts
            guard let cipher = EVP_CIPHER_fetch(TLSContext.library, "AES-128-GCM", query) else { throw Refused() }
            defer { EVP_CIPHER_free(cipher) }
            try demand(EVP_CipherInit_ex(context, cipher, nil, nil, nil, encrypts ? 1 : 0))
            try demand(EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_IVLEN, 12, nil))
            try demand(EVP_CipherInit_ex(context, nil, nil, key, nil, -1))
        }

        deinit { EVP_CIPHER_CTX_free(context) }

        private func demand(_ result: Int32) throws {
            ERR_clear_error()
            if result <= 0 { throw Refused() }
        }

        func begin(iv: [UInt8]) throws { try demand(EVP_CipherInit_ex(context, nil, nil, nil, iv, -1)) }
        func beginAgain() throws { try demand(EVP_CipherInit_ex(context, nil, nil, nil, nil, -1)) }
        func setTag(_ tag: [UInt8]) throws {
            var tag = tag
            try demand(EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, Int32(tag.count), &tag))
        }
        func setIVBytes(_ count: Int32) throws {
            try demand(EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_IVLEN, count, nil))
        }
        func authenticate(_ bytes: [UInt8]) throws {
            var count: Int32 = 0
            try demand(EVP_CipherUpdate(context, nil, &count, bytes, Int32(bytes.count)))
        }
        /// In place, in pieces of so many bytes.
        func update(_ bytes: inout [UInt8], pieces: Int) throws {
            var start = 0
            while start < bytes.count {
                let piece = min(pieces, bytes.count - start)
                var count: Int32 = 0
                try bytes.withUnsafeMutableBufferPointer { bytes in
                    let address = bytes.baseAddress! + start
                    try demand(EVP_CipherUpdate(context, address, &count, address, Int32(piece)))
                }
                #expect(Int(count) == piece)
                start += piece
            }
        }
        func finish() throws -> [UInt8] {
            var nothing: [UInt8] = Array(repeating: 0, count: 16)
            var count: Int32 = 0
            try demand(EVP_CipherFinal_ex(context, &nothing, &count))
            #expect(count == 0)
            guard encrypts else { return [] }
            var tag: [UInt8] = Array(repeating: 0, count: 16)
            try demand(EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, 16, &tag))
            return tag
        }

        func encrypt(_ content: [UInt8], iv: [UInt8], authenticated: [UInt8], pieces: Int = .max) throws -> Message {
            try begin(iv: iv)
            if !authenticated.isEmpty { try authenticate(authenticated) }
            var content = content
            try update(&content, pieces: pieces)
            return Message(content: content, tag: try finish())
        }

        func decrypt(_ message: Message, iv: [UInt8], authenticated: [UInt8], pieces: Int = .max) throws -> [UInt8] {
            try begin(iv: iv)
            try setTag(message.tag)
            if !authenticated.isEmpty { try authenticate(authenticated) }
            var content = message.content
            try update(&content, pieces: pieces)
            _ = try finish()
            return content
        }
    }

    static let ours = "provider=cairn-gcm"
    static let theirs = "provider=default"

    static func bytes(_ hex: String) -> [UInt8] {
        stride(from: 0, to: hex.count, by: 2).map { start in
            UInt8(hex.dropFirst(start).prefix(2), radix: 16)!
        }
    }

    @Test("TLS takes ours; whoever else asks OpenSSL for the cipher gets what was there before")
    func isForUsAlone() throws {
        for library in [try #require(TLSContext.library), nil] {
            let cipher = try #require(EVP_CIPHER_fetch(library, "AES-128-GCM", nil))
            defer { EVP_CIPHER_free(cipher) }
            let provider = String(cString: OSSL_PROVIDER_get0_name(EVP_CIPHER_get0_provider(cipher)))
            #expect(provider == (library == nil ? "default" : "cairn-gcm"))
        }
    }

    // Cases 1, 2 and 4 of McGrew and Viega's "The Galois/Counter Mode of Operation".
    @Test(arguments: [
        (
            "00000000000000000000000000000000", "000000000000000000000000", "", "", "",
            "58e2fccefa7e3061367f1d57a4e7455a"
        ),
        (
            "00000000000000000000000000000000", "000000000000000000000000", "", "00000000000000000000000000000000",
            "0388dace60b6a392f328c2b971b2fe78", "ab6e47d42cec13bdf53a67b21257bddf"
        ),
        (
            "feffe9928665731c6d6a8f9467308308", "cafebabefacedbaddecaf888", "feedfacedeadbeeffeedfacedeadbeefabaddad2",
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525"
                + "b16aedf5aa0de657ba637b39",
            "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e21d514b25466931c7d8f6a5aac84aa05"
                + "1ba30b396a0aac973d58e091",
            "5bc94fbc3221a5db94fae95ae7121a47"
        ),
    ])
    func vector(key: String, iv: String, authenticated: String, plain: String, encrypted: String, tag: String) throws {
        let expected = Message(content: Self.bytes(encrypted), tag: Self.bytes(tag))
        let (key, iv, authenticated) = (Self.bytes(key), Self.bytes(iv), Self.bytes(authenticated))
        let encryption = try Cipher(Self.ours, encrypts: true, key: key)
        #expect(try encryption.encrypt(Self.bytes(plain), iv: iv, authenticated: authenticated) == expected)
        let decryption = try Cipher(Self.ours, encrypts: false, key: key)
        #expect(try decryption.decrypt(expected, iv: iv, authenticated: authenticated) == Self.bytes(plain))
    }

    @Test(
        "Every length to 1,100 bytes, and longer ones, whole and in pieces, as OpenSSL's own; what was changed on the way is refused"
    )
    func sameAsOpenSSL() throws {
        var random = SystemRandomNumberGenerator()
        func some(_ count: Int) -> [UInt8] { (0..<count).map { _ in UInt8.random(in: 0...255, using: &random) } }
        let key = some(16)
        let (ours, theirs) = (
            try Cipher(Self.ours, encrypts: true, key: key), try Cipher(Self.theirs, encrypts: true, key: key)
        )
        let decryption = try Cipher(Self.ours, encrypts: false, key: key)
        let noise = some(70_000)
        for count in Array(0...1100) + [4096, 16_383, 16_384, 16_385, 65_536, 70_000] {
            let content = Array(noise[..<count])
            let (iv, authenticated) = (some(12), some(count % 37))
            let pieces = Int.random(in: 1...max(1, count))
            let message = try theirs.encrypt(content, iv: iv, authenticated: authenticated)
            #expect(try ours.encrypt(content, iv: iv, authenticated: authenticated) == message)
            #expect(try ours.encrypt(content, iv: iv, authenticated: authenticated, pieces: pieces) == message)
            #expect(try decryption.decrypt(message, iv: iv, authenticated: authenticated, pieces: pieces) == content)
            var changed = message
            changed.tag[count % 16] ^= 1
            #expect(throws: Refused.self) { try decryption.decrypt(changed, iv: iv, authenticated: authenticated) }
            guard count > 0 else { continue }
            changed = message
            changed.content[count / 2] ^= 0x80
            #expect(throws: Refused.self) { try decryption.decrypt(changed, iv: iv, authenticated: authenticated) }
            #expect(throws: Refused.self) {
                try decryption.decrypt(message, iv: iv, authenticated: authenticated + [0])
            }
        }
    }

    @Test(
        "What it does not do is refused: another length of IV or tag, an IV twice, none, no tag, authenticated data in pieces"
    )
    func refusals() throws {
        let (key, iv): ([UInt8], [UInt8]) = (Array(repeating: 1, count: 16), Array(repeating: 2, count: 12))
        let encryption = try Cipher(Self.ours, encrypts: true, key: key)
        #expect(throws: Refused.self) { try encryption.setIVBytes(16) }
        #expect(throws: Refused.self) { try encryption.authenticate([1]) }
        let message = try encryption.encrypt([1, 2, 3], iv: iv, authenticated: [])
        var more: [UInt8] = [4]
        #expect(throws: Refused.self) { try encryption.update(&more, pieces: 1) }
        try encryption.begin(iv: iv)
        try encryption.authenticate([1])
        #expect(throws: Refused.self) { try encryption.authenticate([1]) }
        // An IV that a message was begun with is used up, also where it was given up.
        try encryption.begin(iv: iv)
        try encryption.update(&more, pieces: 1)
        try encryption.beginAgain()
        #expect(throws: Refused.self) { try encryption.update(&more, pieces: 1) }
        let decryption = try Cipher(Self.ours, encrypts: false, key: key)
        #expect(throws: Refused.self) { try decryption.setTag(Array(message.tag[..<12])) }
        // The tag of the message before is not this one's.
        #expect(try decryption.decrypt(message, iv: iv, authenticated: []) == [1, 2, 3])
        try decryption.begin(iv: iv)
        var content = message.content
        try decryption.update(&content, pieces: 3)
        #expect(throws: Refused.self) { try decryption.finish() }
    }
}
