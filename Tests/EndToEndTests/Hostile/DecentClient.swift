import CairnTesting
import Synchronization
import Testing

/// What a client that behaves saw while others did not.
struct DecentFacts: Sendable {
    var rounds = 0
    /// The slowest call: an upload of a chunk, or its download.
    var slowest = Duration.zero
}

private final class Flag: Sendable {
    private let value = Atomic<Bool>(false)
    var isSet: Bool { value.load(ordering: .relaxed) }
    func set() { value.store(true, ordering: .relaxed) }
}

/// Runs `body`; all the while a client of another account uploads, reads back and compares. Each of its calls has a limit against
/// hanging (``Caller``'s).
func besideDecentClient<Value: Sendable>(
    _ server: ServerProcess,
    _ body: @Sendable () async throws -> Value
) async throws -> (value: Value, facts: DecentFacts) {
    let caller = try await server.connect(freshAccount("decent"))
    let volume = try await caller.createVolume().volumeID
    let isOver = Flag()
    return try await withThrowingTaskGroup(of: DecentFacts.self) { group in
        group.addTask {
            var facts = DecentFacts()
            // One at least, where the others are done before this task has had its turn.
            repeat {
                let offset = UInt64(facts.rounds % 16) << 16
                let bytes = Content.noise(UInt64(facts.rounds), 65536)
                let slowest = try await ContinuousClock().measure {
                    try await caller.upload(volume, .plain(offset, bytes))
                }
                let reading = try await ContinuousClock().measure {
                    let read = try await caller.download(volume, offset..<offset + 65536)
                    #expect(read == bytes, "a wrong answer in round \(facts.rounds)")
                }
                facts.slowest = max(facts.slowest, slowest, reading)
                facts.rounds += 1
                try await Task.sleep(for: .milliseconds(5))
            } while !isOver.isSet
            return facts
        }
        do {
            let value = try await body()
            isOver.set()
            return (value, try await group.next()!)
        } catch {
            group.cancelAll()
            throw error
        }
    }
}
