import CairnClient
import CairnCore
import Synchronization
import Testing

/// SPEC R3: one account beside another that wants everything. How large the shares are is `tools/fairness`' to show.
@Suite(.serialized, .server(shards: 1))
struct LibraryFairnessTests {
    private let server = ServerProcess.shared

    /// Uploads of 1 MiB, hundreds of them under way, until it is cancelled.
    private final class Greed: Sendable {
        private let done = Mutex(0)
        var uploads: Int { done.withLock { $0 } }

        func work(_ client: Client, _ volume: VolumeID) async throws {
            let contents = (0..<32).map { Content.noise(UInt64($0), 1 << 20).slice }
            try await withThrowingTaskGroup(of: Void.self) { group in
                for lane in 0..<256 {
                    group.addTask {
                        let block = BlockUpload(
                            offset: UInt64(lane) << 20,
                            length: 1 << 20,
                            content: .plain(contents[lane % 32])
                        )
                        while !Task.isCancelled {
                            _ = try await client.upload([block], to: .volume(volume))
                            self.done.withLock { $0 += 1 }
                        }
                    }
                }
                try await group.waitForAll()
            }
        }
    }

    @Test("R3: an account's small calls do not starve beside another's hundreds of uploads of 1 MiB")
    func starvation() async throws {
        var options = ClientOptions()
        (options.connections, options.callLimit) = (8, .seconds(120))
        let greedy = try server.client(freshAccount("greedy"), options)
        let large = try await greedy.volume(size: 256 << 20, chunkSize: 1 << 20).id
        let victim = try server.client(freshAccount("victim"))
        let volume = try await victim.volume().id
        let greed = Greed()
        let busy = Task { try await greed.work(greedy, large) }
        defer { busy.cancel() }
        try await eventually("the other account is at work", within: .seconds(60)) { greed.uploads >= 64 }
        let before = greed.uploads
        let clock = ContinuousClock()
        let begin = clock.now
        var (rounds, slowest) = (0, Duration.zero)
        while clock.now - begin < .seconds(3) || rounds < 10 {
            let bytes = Content.noise(UInt64(rounds), 4096)
            for step in 0..<3 {
                let start = clock.now
                switch step {
                case 0: try await victim.write(bytes, to: .volume(volume))
                case 1: #expect(try await victim.read(.volume(volume), 0..<4096) == bytes)
                default: _ = try await victim.describeVolume(volume)
                }
                slowest = max(slowest, clock.now - start)
            }
            rounds += 1
        }
        // Generous: the machine is shared with other tests.
        #expect(slowest < .seconds(5))
        #expect(clock.now - begin < .seconds(30), "\(rounds) rounds")
        #expect(greed.uploads > before, "nobody was greedy")
        busy.cancel()
        _ = await busy.result
    }
}
