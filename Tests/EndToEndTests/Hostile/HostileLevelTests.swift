import CairnClient
import CairnCore
import CairnCrypto
import CairnRPC
import CairnTesting
import CairnTransport
import CairnWire
import Foundation
import Testing

/// The level `hostile`: many connections that do nothing, little, or too much; beside them a decent client goes on working, and the
/// server's memory stays within bounds. What strangers send that no frame looks like is HostileStrangerTests' business.
@Suite(.serialized, .timeLimit(.minutes(60)))
struct HostileLevelTests {
    private static let count = Torture.count("hostile", otherwise: 200)
    /// Of anonymous memory, for a connection; what all of them share is given beside it.
    private static let connectionBytes = 64 << 10

    // MARK: Idle connections

    @Test("Idle mTLS connections cost at most 64 KiB of RssAnon each, stay open, and leave nothing behind")
    func idle() async throws {
        DescriptorLimit.raise()
        let server = try await ServerProcess.started()
        let crowd = try Crowd(server)
        // What the first connections need, later ones use again.
        try await crowd.open(100)
        try await crowd.close()
        let before = server.anonymousMemory
        let descriptors = server.descriptorCount
        let (bytes, facts) = try await besideDecentClient(server) {
            try await crowd.open(Self.count)
            let bytes = (server.anonymousMemory - before) / Self.count
            #expect(bytes <= Self.connectionBytes)
            #expect(server.descriptorCount >= Self.count)
            // Nobody was let go: each of them still gets its answer.
            try await crowd.callAll()
            #expect((server.anonymousMemory - before) / Self.count <= Self.connectionBytes)
            try await crowd.close()
            // Again: what the first ones held is used again, not kept.
            let held = server.anonymousMemory
            try await crowd.open(Self.count)
            #expect(server.anonymousMemory - before <= Self.connectionBytes * Self.count)
            #expect(server.anonymousMemory - held <= Self.connectionBytes * Self.count)
            try await crowd.close()
            return bytes
        }
        #expect(facts.rounds > 0)
        try await eventually("the server closes its descriptors", within: .seconds(60)) {
            server.descriptorCount <= descriptors + 8
        }
        report(facts, ["idle": Self.count, "bytes_per_connection": bytes])
    }

    // MARK: Handshakes that never end

    private enum HalfOpen: Int, CaseIterable {
        case silent, cut, drip, noise, http
    }

    @Test("Handshakes that never end, in five ways, are cut after ten seconds and cost no more than a connection")
    func halfOpen() async throws {
        DescriptorLimit.raise()
        let server = try await ServerProcess.started()
        let tls = try Crowd(server).tls
        let count = max(50, Self.count / 4)
        let before = server.anonymousMemory
        let (_, facts) = try await besideDecentClient(server) {
            let sockets = try (0..<count).map { _ in try PlainSocket(to: server.endpoint) }
            let hello = try Stranger.clientHello(to: server.endpoint, tls)
            for (index, socket) in sockets.enumerated() {
                switch HalfOpen(rawValue: index % HalfOpen.allCases.count)! {
                case .silent, .drip: break
                case .cut: _ = socket.send(hello.prefix(1 + index % (hello.count - 1)))
                case .noise: _ = socket.send(Content.noise(UInt64(index), 2000))
                case .http: _ = socket.send(Array("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".utf8))
                }
            }
            var most = 0
            let begin = ContinuousClock.now
            // A byte each time: what keeps coming ends no sooner and no later.
            for byte in hello where !sockets.allSatisfy({ $0.isCut }) && ContinuousClock.now - begin < .seconds(30) {
                for (index, socket) in sockets.enumerated()
                where index % HalfOpen.allCases.count == HalfOpen.drip.rawValue {
                    _ = socket.send([byte])
                }
                most = max(most, server.anonymousMemory - before)
                try await Task.sleep(for: .milliseconds(200))
            }
            #expect(most <= Self.connectionBytes * count + (16 << 20))
            try await eventually("all are cut", within: .seconds(60)) { sockets.allSatisfy({ $0.isCut }) }
        }
        #expect(facts.rounds > 0)
        report(facts, ["half_open": count])
    }

    private func report(_ facts: DecentFacts, _ more: KeyValuePairs<String, Int>) {
        Torture.report("hostile", more)
        let slowest = Int(facts.slowest / .milliseconds(1))
        print("hostile: beside it \(facts.rounds) rounds of a decent client, the slowest call \(slowest) ms")
    }
}
