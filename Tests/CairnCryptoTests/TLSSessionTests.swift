import CairnCore
import Foundation
import Testing

@testable import CairnCrypto

/// Two sessions in one process: what one puts into its output is the other's input.
@Suite struct TLSSessionTests {
    struct Side {
        let session: TLSSession
        let buffers: TLSBuffers
    }
    let folder: TemporaryFolder
    let client: Side
    let server: Side

    init() throws {
        folder = try TemporaryFolder()
        let authority = try CertificateAuthority.create(in: folder.path)
        func side(_ role: TLSContext.Role, _ credentials: CertificateAuthority.Credentials) throws -> Side {
            let files = TLSFiles(
                authorities: [authority.certificatePath],
                certificate: credentials.certificatePath,
                privateKey: credentials.keyPath
            )
            let buffers = TLSBuffers()
            let host = role == .client ? "localhost" : nil
            return Side(
                session: try TLSSession(context: TLSContext(role, files: files), buffers: buffers, host: host),
                buffers: buffers
            )
        }
        server = try side(.server, authority.issueServer(CredentialName("server"), names: [.dns("localhost")]))
        client = try side(
            .client,
            authority.issue(
                CredentialName("client"),
                role: .client,
                alternativeNames: [.uri("cairn://admin")],
                validity: .days(1)
            )
        )
        var done = (client: false, server: false)
        for _ in 0..<10 where !done.client || !done.server {
            if !done.client { done.client = try client.session.handshake() }
            try move(from: client, to: server) { if !done.server { done.server = try server.session.handshake() } }
            try move(from: server, to: client) { if !done.client { done.client = try client.session.handshake() } }
        }
        try #require(done.client && done.server)
    }

    /// Carries the ciphertext over, as much at once as an input takes; `take` uses it up. Gives its length.
    @discardableResult private func move(from: Side, to: Side, take: () throws -> Void) throws -> Int {
        var output = Array(from.buffers.output)
        let count = output.count
        from.buffers.clearOutput()
        while !output.isEmpty {
            let piece = min(output.count, TLSBuffers.inputCapacity)
            to.buffers.input.copyBytes(from: output[..<piece])
            to.buffers.received(piece)
            output.removeFirst(piece)
            try take()
        }
        return count
    }

    /// Sends the content from one side to the other. Gives what came, and how many bytes of ciphertext it took.
    private func send(_ content: [UInt8], from: Side, to: Side) throws -> (content: [UInt8], encrypted: Int) {
        var (received, encrypted, start): ([UInt8], Int, Int) = ([], 0, 0)
        let target = UnsafeMutableRawBufferPointer.allocate(byteCount: TLSSession.recordBytes, alignment: 1)
        defer { target.deallocate() }
        while start < content.count {
            let taken = try content.withUnsafeBytes {
                try from.session.write(UnsafeRawBufferPointer(rebasing: $0[start...]))
            }
            try #require(taken > 0)
            start += taken
            encrypted += try move(from: from, to: to) {
                while case .bytes(let count) = try to.session.read(into: target) { received += target[..<count] }
            }
        }
        return (received, encrypted)
    }

    @Test(
        "What one side writes, the other reads, at any length",
        arguments: [1, 2, 16_383, 16_384, 16_385, 300_000, 1 << 20]
    )
    func bothWays(count: Int) throws {
        let content = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ $0 >> 8) }
        #expect(try send(content, from: client, to: server).content == content)
        #expect(try send(content, from: server, to: client).content == content)
    }

    @Test("A key encrypts only so many records, then each side changes its own, in the middle of what it sends")
    func keyChanges() throws {
        let content = (0..<1 << 20).map { UInt8(truncatingIfNeeded: $0 &* 11 &+ $0 >> 9) }
        let plain = try send(content, from: client, to: server)
        #expect(plain.content == content)
        client.session.recordsPerKey = 8
        server.session.recordsPerKey = 3
        // A change is a record of its own: a header of 5 bytes, a message of 5, its type, and a tag of 16.
        let changeBytes = 5 + 5 + 1 + 16
        // 64 records went before, and 64 go now.
        let changed = try send(content, from: client, to: server)
        #expect(changed.content == content && changed.encrypted == plain.encrypted + 8 * changeBytes)
        let answered = try send(content, from: server, to: client)
        #expect(answered.content == content && answered.encrypted == plain.encrypted + 21 * changeBytes)
        #expect(try send(content, from: client, to: server).content == content)
    }

    @Test("A key changes while half of a record that came lies in the session") func keyChangesAmidARecord() throws {
        #expect(client.session.recordsPerKey < 1 << 24)
        let content: [UInt8] = Array(repeating: 7, count: 1000)
        _ = try content.withUnsafeBytes { try server.session.write($0) }
        let record = Array(server.buffers.output)
        server.buffers.clearOutput()
        client.buffers.input.copyBytes(from: record[..<500])
        client.buffers.received(500)
        let target = UnsafeMutableRawBufferPointer.allocate(byteCount: TLSSession.recordBytes, alignment: 1)
        defer { target.deallocate() }
        #expect(try client.session.read(into: target) == .needsInput)
        client.session.recordsPerKey = 1
        for _ in 0..<3 { #expect(try send(content, from: client, to: server).content == content) }
        client.buffers.input.copyBytes(from: record[500...])
        client.buffers.received(record.count - 500)
        #expect(try client.session.read(into: target) == .bytes(1000))
        #expect(target[..<1000].elementsEqual(content))
    }
}
