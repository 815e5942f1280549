import CairnCore
import CairnTesting
import CairnWire
import Foundation
import Testing

/// Bytes that no client of ours sends: they neither crash nor stall the server, nor grow its memory.
@Suite(.serialized, .server())
struct HostileStrangerTests {
    private let server = ServerProcess.shared

    /// What a stranger sends after a good handshake, and whether the connection must end for it.
    private struct Attack {
        var name: String
        var bytes: [UInt8]
        /// A good HELLO goes first, and its answer is awaited.
        var greets = true
        /// The server must end the connection: by GOAWAY with PROTOCOL_ERROR where it has said HELLO.
        var isFatal = true
    }

    private static func bytes(_ count: Int, _ generator: inout SeededRandom) -> [UInt8] {
        (0..<count).map { _ in UInt8.random(in: 0...255, using: &generator) }
    }

    /// A header with one 32-bit word replaced.
    private static func patched(_ frame: [UInt8], at offset: Int, _ word: UInt32) -> [UInt8] {
        Array(frame[0..<offset]) + Content.littleEndian(word) + frame[(offset + 4)...]
    }

    private static func attack(_ seed: Int, volume: [UInt8]) -> Attack {
        var generator = SeededRandom(seed: UInt64(seed) &* 7919)
        return seed % 20 < 14 ? broken(seed % 20, &generator) : odd(seed % 20, volume, &generator)
    }

    /// What no frame or no order of frames looks like.
    private static func broken(_ kind: Int, _ generator: inout SeededRandom) -> Attack {
        let facts = UInt32(Wire.Method.getServerFacts.rawValue)
        let good = TLSStream.frame(.request, method: facts, callID: 1)
        let large = UInt32.random(in: (17 << 20) + (1 << 20)...UInt32.max, using: &generator)
        switch kind {
        case 0:
            // The first byte of a good length would be awaited: this one is too long or no header.
            return Attack(
                name: "noise",
                bytes: [0, 0, 0, 0xff] + bytes(Int.random(in: 28...4000, using: &generator), &generator)
            )
        case 1:
            return Attack(
                name: "noise before HELLO",
                bytes: [0, 0, 0, 0xff] + bytes(Int.random(in: 28...4000, using: &generator), &generator),
                greets: false
            )
        case 2: return Attack(name: "oversized body", bytes: patched(good, at: 0, large))
        case 3: return Attack(name: "oversized message", bytes: patched(patched(good, at: 0, 2 << 20), at: 12, 2 << 20))
        case 4: return Attack(name: "message beyond its body", bytes: patched(good, at: 12, large))
        case 5:
            return Attack(
                name: "unknown version",
                bytes: Array(good[0..<4]) + [UInt8.random(in: 2...255, using: &generator)] + good[5...]
            )
        case 6:
            return Attack(
                name: "unknown kind",
                bytes: Array(good[0..<5]) + [UInt8.random(in: 9...255, using: &generator)] + good[6...]
            )
        case 7: return Attack(name: "flags", bytes: Array(good[0..<6]) + [1, 0] + good[8...])
        case 8: return Attack(name: "a second HELLO", bytes: TLSStream.hello)
        case 9:
            return Attack(name: "an answer to nothing", bytes: TLSStream.frame(.response, method: facts, callID: 77))
        case 10: return Attack(name: "the same call ID again", bytes: good + good)
        case 11: return Attack(name: "a request instead of HELLO", bytes: good, greets: false)
        case 12:
            let hello = TLSStream.frame(.hello, message: bytes(Int.random(in: 1...900, using: &generator), &generator))
            return Attack(name: "a HELLO of noise", bytes: hello, greets: false)
        default:
            return Attack(name: "a payload on a PING", bytes: patched(Array(good[0..<5]) + [5] + good[6...], at: 0, 64))
        }
    }

    /// What frames can say, but no client would: cut off, or nonsense that is answered.
    private static func odd(_ kind: Int, _ volume: [UInt8], _ generator: inout SeededRandom) -> Attack {
        switch kind {
        case 14:
            let good = TLSStream.frame(.request, method: UInt32(Wire.Method.getServerFacts.rawValue), callID: 1)
            return Attack(
                name: "a truncated frame",
                bytes: Array(good.prefix(Int.random(in: 1...31, using: &generator))),
                isFatal: false
            )
        case 15:
            let frame = TLSStream.frame(
                .request,
                method: UInt32(Wire.Method.uploadBlock.rawValue),
                callID: 1,
                message: bytes(300, &generator),
                payload: bytes(9000, &generator)
            )
            return Attack(
                name: "a truncated upload",
                bytes: Array(frame.prefix(Int.random(in: 33...9000, using: &generator))),
                isFatal: false
            )
        case 16:
            let message = bytes(Int.random(in: 1...3000, using: &generator), &generator)
            let method = UInt32.random(in: 0...130, using: &generator)
            return Attack(
                name: "a message of noise",
                bytes: TLSStream.frame(.request, method: method, callID: 1, message: message),
                isFatal: false
            )
        case 17: return upload(volume, &generator)
        case 18: return download(volume, &generator)
        default:
            var frames: [UInt8] = []
            for id in 0..<UInt64.random(in: 1...300, using: &generator) {
                frames += TLSStream.frame(.cancel, callID: id) + TLSStream.frame(.ping, callID: id)
            }
            return Attack(name: "cancels and pings", bytes: frames, isFatal: false)
        }
    }

    private static func upload(_ volume: [UInt8], _ generator: inout SeededRandom) -> Attack {
        var blocks: [Wire.UploadBlock] = []
        for _ in 0..<Int.random(in: 0...50, using: &generator) {
            blocks.append(
                Wire.UploadBlock(
                    offset: .random(in: 0 ... .max, using: &generator),
                    length: .random(in: 0 ... .max, using: &generator),
                    checksum: .init(
                        algorithm: .init(rawValue: .random(in: 0...5, using: &generator)),
                        value: bytes(4, &generator)
                    ),
                    codec: .init(rawValue: .random(in: 0...3, using: &generator)),
                    source: [
                        nil, .payloadLength(.random(in: 0 ... .max, using: &generator)), .payloadLength(64),
                        .token(bytes(32, &generator)),
                        .token([]), .zeros(Wire.Empty()), .hole(Wire.Empty()),
                    ].randomElement(using: &generator)!
                )
            )
        }
        let request = Wire.UploadBlockRequest(target: .init(target: .volumeID(volume)), blocks: blocks).encode()
        let payload = bytes(Int.random(in: 0...2000, using: &generator), &generator)
        return Attack(
            name: "an upload of nonsense",
            bytes: TLSStream.frame(
                .request,
                method: UInt32(Wire.Method.uploadBlock.rawValue),
                callID: 1,
                message: request,
                payload: payload
            ),
            isFatal: false
        )
    }

    private static func download(_ volume: [UInt8], _ generator: inout SeededRandom) -> Attack {
        let ranges = (0..<Int.random(in: 0...200, using: &generator)).map { _ in
            Wire.ByteRange(
                offset: .random(in: 0 ... .max, using: &generator),
                length: .random(in: 0 ... .max, using: &generator)
            )
        }
        let request = Wire.DownloadBlockRequest(
            target: .init(target: .volumeID(volume)),
            ranges: ranges,
            knownTokens: [bytes(31, &generator)]
        ).encode()
        return Attack(
            name: "a download of nonsense",
            bytes: TLSStream.frame(
                .request,
                method: UInt32(Wire.Method.downloadBlock.rawValue),
                callID: 1,
                message: request
            ),
            isFatal: false
        )
    }

    private func run(_ attack: Attack, _ credentials: (certificate: String, key: String), _ seed: Int) async throws {
        let stream = try TLSStream(
            server.endpoint,
            .init(
                certificate: credentials.certificate,
                privateKey: credentials.key,
                authorities: server.authority.certificatePath
            ),
            in: server.folder
        )
        if attack.greets { try await stream.greet() }
        stream.child.write(attack.bytes)
        if attack.isFatal {
            _ = try await within(.seconds(15), "\(seed): \(attack.name) ends the connection") {
                try await stream.child.wait(limit: .seconds(15))
            }
            let frames = try stream.frames
            if attack.greets {
                #expect(frames.last?.header.kind == .goAway, "\(seed): \(attack.name)")
                let detail = try frames.last.map { try Wire.ErrorDetail.decode($0.message) }
                #expect(detail?.reason == .protocolError, "\(seed): \(attack.name)")
            } else {
                #expect(frames.allSatisfy { $0.header.kind == .goAway }, "\(seed): \(attack.name)")
            }
        } else if attack.bytes.count >= 32, attack.name.contains("of n") {
            // Answered, and the connection goes on.
            try await eventually("\(seed): \(attack.name) is answered") {
                try stream.frames.count >= 2 || !stream.child.isRunning
            }
            #expect(try stream.frames.dropFirst().first?.header.kind == .response, "\(seed): \(attack.name)")
        }
        stream.child.send(SIGKILL)
    }

    /// A process each.
    private static let count = max(500, Torture.count("hostile", otherwise: 0) / 4)

    @Test(
        "500 strangers and more: random, truncated, oversized and misplaced bytes; a good client works all the while",
        .timeLimit(.minutes(60))
    )
    func strangers() async throws {
        let victim = try server.credentials(freshAccount())
        let good = try await server.connect(freshAccount())
        let volume = try await good.createVolume().volumeID
        let attacked = try await server.connect(victim).createVolume().volumeID
        // Warm: what the server keeps for its first connections is not growth.
        for seed in 0..<20 {
            try await run(Self.attack(seed, volume: attacked), (victim.certificate, victim.privateKey), seed)
        }
        let before = server.anonymousMemory
        try await withThrowingTaskGroup(of: Void.self) { group in
            for lane in 0..<4 {
                group.addTask {
                    for seed in stride(from: lane, to: Self.count, by: 4) {
                        let attack = Self.attack(seed, volume: attacked)
                        try await self.run(attack, (victim.certificate, victim.privateKey), seed)
                    }
                }
            }
            let working = Task {
                var slowest = Duration.zero
                var round: UInt64 = 0
                while !Task.isCancelled {
                    let bytes = Content.noise(round, 4096)
                    let begin = ContinuousClock.now
                    try await good.upload(volume, .plain(round % 256 * 4096, bytes))
                    #expect(try await good.download(volume, round % 256 * 4096..<round % 256 * 4096 + 4096) == bytes)
                    slowest = max(slowest, ContinuousClock.now - begin)
                    round += 1
                    try await Task.sleep(for: .milliseconds(5))
                }
                return (round, slowest)
            }
            try await group.waitForAll()
            working.cancel()
            let result = await working.result
            if case .success(let (rounds, slowest)) = result {
                #expect(rounds > 100)
                #expect(slowest < .seconds(5))
            } else if case .failure(let error) = result {
                #expect(error is CancellationError || "\(error)".contains("cancel"), "\(error)")
            }
        }
        #expect(server.child.isRunning)
        #expect(server.anonymousMemory - before < 64 << 20)
        _ = try await server.connect(victim).createVolume()
        Torture.report("hostile", ["strangers": Self.count])
    }

    @Test("Memory does not follow a stranger's promises: 40 connections that announce 17 MiB each and send little")
    func promises() async throws {
        let files = try server.credentials(freshAccount())
        let before = server.anonymousMemory
        var streams: [TLSStream] = []
        for _ in 0..<40 {
            let stream = try TLSStream(server.endpoint, files, in: server.folder)
            try await stream.greet()
            var header: [UInt8] = []
            FrameHeader(.request, method: 32, callID: 1, messageBytes: 1 << 20, payloadBytes: 16 << 20).encode(
                to: &header
            )
            stream.child.write(header + [1, 2, 3])
            streams.append(stream)
        }
        try await Task.sleep(for: .milliseconds(300))
        // 40 × 17 MiB were promised.
        #expect(server.anonymousMemory - before < 64 << 20)
        let good = try await server.connect(freshAccount())
        _ = try await good.createVolume()
        extendLifetime(streams)
    }

    @Test("A stranger that connects and says nothing, or half a HELLO, is closed after ten seconds")
    func silence() async throws {
        let files = try server.credentials(freshAccount())
        let silent = try TLSStream(server.endpoint, files, in: server.folder)
        let half = try TLSStream(server.endpoint, files, in: server.folder)
        half.child.write(Array(TLSStream.hello.prefix(20)))
        let begin = ContinuousClock.now
        for stream in [silent, half] { _ = try await stream.child.wait(limit: .seconds(20)) }
        #expect(ContinuousClock.now - begin > .seconds(7))
    }
}
