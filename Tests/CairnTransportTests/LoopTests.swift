import Dispatch
import Foundation
import Synchronization
import Testing

@testable import CairnTransport

/// What a loop runs on.
@Suite(.timeLimit(.minutes(5))) struct LoopTests {
    private static func threads(named name: String) -> Int {
        let tasks = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/task")) ?? []
        return tasks.count { task in
            (try? String(contentsOfFile: "/proc/self/task/\(task)/comm", encoding: .utf8)) == name + "\n"
        }
    }

    private func eventually(_ condition: () -> Bool) async throws -> Bool {
        let end = ContinuousClock.now + .seconds(60)
        while !condition() {
            guard ContinuousClock.now < end else { return false }
            try await Task.sleep(for: .milliseconds(5))
        }
        return true
    }

    /// What was handed over is done, though nobody holds the loop any more; then its thread ends.
    @Test(arguments: [LoopKind.thread, .dispatch]) func endsWhenItIsLetGoOf(kind: LoopKind) async throws {
        let done = Atomic<Int>(0)
        let name = "let-go-\(kind)"
        for _ in 0..<20 {
            let loop = EventLoop(name: name, on: kind)
            for _ in 0..<100 {
                loop.execute { [unowned loop] in
                    loop.assertCurrent()
                    done.add(1, ordering: .relaxed)
                }
            }
        }
        #expect(try await eventually { done.load(ordering: .relaxed) == 2000 })
        #expect(try await eventually { Self.threads(named: String(name.prefix(15))) == 0 })
    }

    /// From many threads at once, between sleeps and wake-ups: nothing that was handed over is forgotten.
    @Test(arguments: [LoopKind.thread, .dispatch]) func isAlwaysWoken(kind: LoopKind) async throws {
        let loop = EventLoop(name: "woken", on: kind)
        for round in 0..<2000 {
            await withCheckedContinuation { continuation in
                loop.execute {
                    if round % 3 == 0 { loop.execute { continuation.resume() } } else { continuation.resume() }
                }
            }
        }
    }

    @Test func isCurrentOnItsOwnThreadAlone() async {
        let loops = [EventLoop(name: "one"), EventLoop(name: "two")]
        #expect(!loops[0].isCurrent)
        let seen = await withCheckedContinuation { continuation in
            loops[0].execute { continuation.resume(returning: loops.map(\.isCurrent)) }
        }
        #expect(seen == [true, false])
    }

    /// A task that prefers a loop runs there, before and after what it awaits.
    @Test func runsTasks() async {
        let loop = EventLoop(name: "tasks")
        let other = EventLoop(name: "others")
        let seen = await withTaskExecutorPreference(LoopExecutor(loop)) {
            var seen = [loop.isCurrent]
            for _ in 0..<100 {
                let came = await withCheckedContinuation { continuation in
                    other.execute { continuation.resume(returning: other.isCurrent) }
                }
                seen.append(came && loop.isCurrent)
            }
            return seen
        }
        #expect(seen == Array(repeating: true, count: 101))
    }
}
