import CairnClient
import CairnTesting
import CairnTransport
import CairnWire
import Testing

/// The level `hostile`, too: clients that want more than is good for the server.
@Suite(.serialized, .timeLimit(.minutes(60)))
struct HostileGreedTests {
    private static let count = Torture.count("hostile", otherwise: 200)
    private static let answerBytes = 16 << 20
    private static let flightBytes = 256 << 20

    /// A volume full of what no codec makes smaller, as long as the longest answer.
    private func fill(_ caller: Caller, chunkSize: UInt32 = 65536) async throws -> [UInt8] {
        let volume = try await caller.createVolume(size: UInt64(Self.answerBytes), chunkSize: chunkSize).volumeID
        let bytes = Content.noise(1, Self.answerBytes)
        for offset in stride(from: 0, to: Self.answerBytes, by: 1 << 20) {
            try await caller.upload(volume, .plain(UInt64(offset), Array(bytes[offset..<offset + 1 << 20])))
        }
        return volume
    }

    private static func wish(_ id: UInt64, _ volume: [UInt8]) -> [UInt8] {
        let request = Wire.DownloadBlockRequest(
            target: .init(target: .volumeID(volume)),
            ranges: [.init(offset: 0, length: UInt64(answerBytes))]
        )
        return TLSStream.frame(
            .request,
            method: UInt32(Wire.Method.downloadBlock.rawValue),
            callID: id,
            message: request.encode()
        )
    }

    // MARK: Slow readers

    @Test(
        "Who asks for much and reads nothing holds no more memory than its account may, and is cut; then it may ask again"
    )
    func slowReaders() async throws {
        DescriptorLimit.raise()
        let server = try await ServerProcess.started(settings: ["limit-bytes-in-flight=\(Self.flightBytes)"])
        let account = freshAccount("slow")
        let caller = try await server.connect(account)
        let volume = try await fill(caller)
        let tls = try Crowd(server, account).tls
        let readers = max(8, Self.count / 100)
        let wishes = 32
        let before = server.anonymousMemory
        let (most, facts) = try await besideDecentClient(server) {
            let strangers = try (0..<readers).map { _ in try Stranger(to: server.endpoint, tls, receiveBytes: 4096) }
            for stranger in strangers {
                #expect(try stranger.send((1...UInt64(wishes)).flatMap { Self.wish($0, volume) }))
            }
            var most = 0
            let begin = ContinuousClock.now
            // What keeps coming is no sign that anything is read.
            let patience = Duration.seconds(Torture.isWanted("hostile") ? 90 : 2)
            while ContinuousClock.now - begin < patience, !strangers.allSatisfy({ $0.socket.isCut }) {
                most = max(most, server.anonymousMemory - before)
                for stranger in strangers where !stranger.socket.isCut {
                    _ = try stranger.send(TLSStream.frame(.cancel, callID: 1 << 40))
                }
                try await Task.sleep(for: .milliseconds(250))
            }
            if Torture.isWanted("hostile") {
                // Whose calls were all refused has no answer that waits for it, and so is no slow reader.
                for stranger in strangers where !stranger.socket.isCut {
                    let deadline = ContinuousClock.now + .seconds(20)
                    while stranger.headers.count < wishes, !stranger.hasEnded, ContinuousClock.now < deadline {
                        try stranger.read(within: 1000)
                    }
                    #expect(stranger.headers.count == wishes)
                    #expect(stranger.headers.allSatisfy { $0.value == Status.resourceExhausted.rawValue })
                }
                #expect(strangers.contains { $0.socket.isCut })
            }
            return most
        }
        #expect(most < Self.flightBytes + (128 << 20))
        // Their answers are free again, and so is the account.
        try await eventually("the account may ask again", within: .seconds(60)) {
            do {
                let bytes = try await caller.download(volume, 0..<UInt64(Self.answerBytes))
                #expect(bytes == Content.noise(1, Self.answerBytes), "a wrong answer")
                return true
            } catch let error as CallError {
                guard error.reason == .throttled else { throw error }
                return false
            }
        }
        #expect(facts.rounds > 0)
        Torture.report("hostile", ["slow_readers": readers, "their_mib": most >> 20])
    }

    // MARK: Slow senders

    @Test(
        "R3: who begins many large uploads and ends none has no more memory taken than its share; the others are served"
    )
    func stalledUploads() async throws {
        DescriptorLimit.raise()
        let share = Self.flightBytes / 2
        let server = try await ServerProcess.started(settings: ["bytes-in-flight=\(Self.flightBytes)"])
        let account = freshAccount("stall")
        let caller = try await server.connect(account)
        let volume = try await caller.createVolume(size: UInt64(Self.answerBytes)).volumeID
        let tls = try Crowd(server, account).tls
        // Three times what there is.
        let senders = max(3 * Self.flightBytes / Self.answerBytes, Self.count / 50)
        let before = server.anonymousMemory
        let (most, facts) = try await besideDecentClient(server) {
            let strangers = try (0..<senders).map { _ in try Stranger(to: server.endpoint, tls) }
            let upload = TLSStream.frame(
                .request,
                method: UInt32(Wire.Method.uploadBlock.rawValue),
                callID: 1,
                message: Wire.UploadBlockRequest(target: .init(target: .volumeID(volume))).encode(),
                payload: Content.noise(3, Self.answerBytes)
            )
            var most = 0
            for stranger in strangers {
                #expect(try stranger.send(Array(upload.dropLast())))
                most = max(most, server.anonymousMemory - before)
            }
            for stranger in strangers { #expect(try stranger.send(Array(upload.suffix(1)))) }
            var refused = 0
            for stranger in strangers {
                let deadline = ContinuousClock.now + .seconds(60)
                while stranger.headers.isEmpty, !stranger.hasEnded, ContinuousClock.now < deadline {
                    try stranger.read(within: 1000)
                }
                #expect(stranger.headers.count == 1 && stranger.headers.first?.kind == .response)
                refused += stranger.headers.count { $0.value == Status.resourceExhausted.rawValue }
            }
            // Those that were let in name no block: they are refused for that.
            #expect(senders - refused == share / Self.answerBytes)
            return most
        }
        // What the decent client has, and what the pools keep.
        #expect(most < share + (128 << 20))
        #expect(facts.rounds > 0)
        // Nothing is held any more.
        try await caller.upload(volume, .plain(0, Content.noise(4, 4 << 20)))
        Torture.report("hostile", ["stalled_uploads": senders, "stalled_mib": most >> 20])
    }

    // MARK: Floods

    @Test("Floods of calls that are cancelled at once: each has one answer, the connection lives, memory comes back")
    func cancels() async throws {
        let server = try await ServerProcess.started()
        let account = freshAccount("flood")
        let volume = try await fill(try await server.connect(account))
        let tls = try Crowd(server, account).tls
        let before = server.anonymousMemory
        let calls = 5 * Self.count
        let (most, facts) = try await besideDecentClient(server) {
            let stranger = try Stranger(to: server.endpoint, tls)
            var most = 0
            var sent: UInt64 = 0
            while sent < UInt64(calls) {
                var bytes: [UInt8] = []
                for _ in 0..<100 {
                    sent += 1
                    bytes += Self.wish(sent, volume) + TLSStream.frame(.cancel, callID: sent)
                    bytes += TLSStream.frame(.cancel, callID: sent + 50)
                }
                guard try stranger.send(bytes) else {
                    throw HarnessError("the server closed: \(server.log.suffix(500))")
                }
                let deadline = ContinuousClock.now + .seconds(60)
                while stranger.headers.count < sent, ContinuousClock.now < deadline { try stranger.read(within: 1000) }
                most = max(most, server.anonymousMemory - before)
            }
            #expect(stranger.headers.count == Int(sent))
            #expect(stranger.headers.allSatisfy { $0.kind == .response })
            #expect(Set(stranger.headers.map(\.callID)).count == Int(sent))
            #expect(!stranger.hasEnded)
            return most
        }
        // What one connection may have under way, and what the pools keep.
        #expect(most < 256 << 20)
        #expect(facts.rounds > 0)
        Torture.report("hostile", ["cancelled": calls])
    }

    @Test("Who asks for everything gets a page, or is refused")
    func everything() async throws {
        let server = try await ServerProcess.started()
        let account = freshAccount("all")
        let caller = try await server.connect(account)
        // 4,096 chunks.
        let volume = try await fill(caller, chunkSize: 4096)
        let snapshot = try await caller.createSnapshot(volume).snapshotID
        let target = Wire.Target(target: .volumeID(volume))
        let all = Wire.PageRequest(limit: .max)
        let before = server.anonymousMemory
        let rounds = max(20, Self.count / 20)
        let (_, facts) = try await besideDecentClient(server) {
            let wishes: [(UInt32, [UInt8])] = [
                Self.wish(Wire.ListVolumesRequest(page: all)), Self.wish(Wire.ListSnapshotsRequest(page: all)),
                Self.wish(Wire.ListBlocksRequest(target: target, page: all)),
                Self.wish(
                    Wire.ListChangedBlocksRequest(
                        older: .init(target: .snapshotID(snapshot)),
                        newer: target,
                        page: all
                    )
                ),
                Self.wish(
                    Wire.QueryChunksRequest(tokens: (0..<20_000).map { [UInt8](repeating: UInt8($0 & 255), count: 32) })
                ),
                Self.wish(Wire.GetUsageRequest()),
                Self.wish(Wire.DownloadBlockRequest(target: target, ranges: [.init(offset: 0, length: 1 << 62)])),
                Self.wish(
                    Wire.DownloadBlockRequest(
                        target: target,
                        ranges: (0..<4096).map { _ in .init(offset: 0, length: UInt64(Self.answerBytes)) }
                    )
                ),
                Self.wish(
                    Wire.DownloadBlockRequest(
                        target: target,
                        ranges: (0..<40_000).map { .init(offset: UInt64($0) * 512, length: 512) }
                    )
                ),
                Self.wish(Wire.DiscardRequest(target: target, ranges: [.init(offset: 0, length: .max)])),
            ]
            try await withThrowingTaskGroup(of: Void.self) { group in
                for lane in 0..<4 {
                    group.addTask {
                        for round in 0..<rounds {
                            let (method, message) = wishes[(round + lane) % wishes.count]
                            let answer = try await caller.raw(method: method, message)
                            #expect(answer.message.count <= 1 << 20)
                            #expect(answer.payload.count <= Self.answerBytes)
                        }
                    }
                }
                try await group.waitForAll()
            }
        }
        #expect(server.anonymousMemory - before < 256 << 20)
        // Nobody got more, and nothing was done that was refused.
        #expect(try await caller.download(volume, 0..<4096) == Array(Content.noise(1, Self.answerBytes)[0..<4096]))
        #expect(facts.rounds > 0)
        Torture.report("hostile", ["wishes": 4 * rounds])
    }

    @Test("R3, D1: who asks for a sector of each of many large chunks has no more than some of them in memory")
    func scattered() async throws {
        let server = try await ServerProcess.started()
        let caller = try await server.connect(freshAccount("scatter"))
        let chunk = 4 << 20
        let chunks = Torture.isWanted("hostile") ? 400 : 96
        let volume = try await caller.createVolume(size: UInt64(chunks * chunk), chunkSize: UInt32(chunk)).volumeID
        for index in 0..<chunks {
            try await caller.upload(volume, .plain(UInt64(index * chunk), Content.noise(UInt64(index), chunk)))
        }
        let ranges = (0..<chunks).map { Wire.ByteRange(offset: UInt64($0 * chunk + 4096), length: 512) }
        try server.forgetPeak()
        let before = server.peakMemory
        let (_, facts) = try await besideDecentClient(server) {
            try await withThrowingTaskGroup(of: Void.self) { group in
                for _ in 0..<8 {
                    group.addTask {
                        let request = Wire.DownloadBlockRequest(
                            target: .init(target: .volumeID(volume)),
                            ranges: ranges
                        )
                        let answer = try await caller.call(request)
                        #expect(answer.payload.count == chunks * 512)
                        for index in 0..<chunks {
                            let sector = answer.payload[index * 512..<(index + 1) * 512]
                            #expect(
                                Array(sector) == Array(Content.noise(UInt64(index), 4608)[4096...]),
                                "chunk \(index)"
                            )
                        }
                    }
                }
                try await group.waitForAll()
            }
        }
        // A step of each worker, and what the pools keep.
        #expect(server.peakMemory - before < 256 << 20)
        #expect(facts.rounds > 0)
        Torture.report("hostile", ["scattered_mib": (server.peakMemory - before) >> 20])
    }

    private static func wish(_ request: some WireRequest) -> (UInt32, [UInt8]) {
        (UInt32(type(of: request).method.rawValue), request.encode())
    }
}
