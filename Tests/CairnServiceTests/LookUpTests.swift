import CairnCore
import CairnWire
import Dispatch
import Foundation
import Synchronization
import Testing

@testable import CairnService
@testable import CairnStore

/// Calls that look up one entry are answered on the thread that they came on, where that waits for nothing and is fair.
@Suite struct LookUpTests {
    private static let here = CallContext(account: ServiceHarness.alice.account, mayAnswerHere: true)

    /// How a DescribeVolume was answered on this thread; nil where another one did, or will.
    private func describe(
        _ volume: [UInt8],
        _ harness: ServiceHarness,
        _ context: CallContext,
        later: @escaping @Sendable (Result<Wire.DescribeVolumeResponse, ServiceError>) -> Void = { _ in }
    ) -> Result<Wire.DescribeVolumeResponse, ServiceError>? {
        let answer = Mutex<Result<Wire.DescribeVolumeResponse, ServiceError>?>(nil)
        let caller = UInt(pthread_self())
        harness.service.describeVolume(Wire.DescribeVolumeRequest(volumeID: volume), context) { result in
            guard UInt(pthread_self()) == caller else { return later(result) }
            answer.withLock { $0 = result }
        }
        return answer.withLock { $0 }
    }

    @Test("C6, C2: what was just answered is seen at once; another's volume, and none, look the same")
    func answersHere() throws {
        let harness = try ServiceHarness()
        for round in 1...20 {
            let volume = try harness.createVolume().volumeID
            for size in [UInt64(round + 4) << 20, UInt64(round + 5) << 20] {
                let resize = Wire.ResizeVolumeRequest(volumeID: volume, size: size)
                _ = try harness.call(harness.service.resizeVolume, resize)
                let seen = try answeredHere(volume, harness, Self.here).get()
                #expect(seen.volume?.volumeID == volume && seen.volume?.size == size)
                // It is at hand now.
                #expect(try answeredHere(volume, harness, Self.here).get() == seen)
            }
            let bob = CallContext(account: ServiceHarness.bob.account, mayAnswerHere: true)
            #expect(try answeredHere(volume, harness, bob) == .failure(.noSuchVolume))
            _ = try harness.call(harness.service.deleteVolume, Wire.DeleteVolumeRequest(volumeID: volume))
            #expect(try answeredHere(volume, harness, Self.here) == .failure(.noSuchVolume))
        }
    }

    /// The first answer that does not take a worker: what goes with a change is put away by workers, and look-ups then wait with it.
    private func answeredHere(_ volume: [UInt8], _ harness: ServiceHarness, _ context: CallContext) throws
        -> Result<Wire.DescribeVolumeResponse, ServiceError>
    {
        var answer: Result<Wire.DescribeVolumeResponse, ServiceError>?
        #expect(
            harness.eventually {
                answer = describe(volume, harness, context)
                return answer != nil
            }
        )
        return try #require(answer)
    }

    @Test("R3: while jobs wait for a worker, look-ups wait for their account's turn as well")
    func waitsWithTheOthers() throws {
        let harness = try ServiceHarness { $1.workers = 1 }
        let volume = try harness.createVolume().volumeID
        let (gate, done) = (DispatchSemaphore(value: 0), DispatchSemaphore(value: 0))
        harness.service.workers.run { gate.wait() }
        #expect(harness.eventually { harness.service.workers.waiting == 0 })
        // Busy workers alone keep nobody waiting.
        #expect(describe(volume, harness, Self.here) != nil)
        harness.service.workers.run(for: ServiceHarness.bob.account) {}
        let late = Mutex<Result<Wire.DescribeVolumeResponse, ServiceError>?>(nil)
        let early = describe(volume, harness, Self.here) { result in
            late.withLock { $0 = result }
            done.signal()
        }
        #expect(early == nil)
        gate.signal()
        try #require(done.wait(timeout: .now() + 60) == .success)
        #expect(try late.withLock { $0 }?.get().volume?.volumeID == volume)
    }

    @Test("What is on the disk alone is read by a worker") func staysOffTheDisk() throws {
        // Without a cache nothing of the index is in memory that was flushed.
        let harness = try ServiceHarness { options, _ in options.indexCacheBytes = 0 }
        let volume = try harness.createVolume().volumeID
        for shard in harness.store.shards { try shard.database.flush() }
        let done = DispatchSemaphore(value: 0)
        let late = Mutex<Result<Wire.DescribeVolumeResponse, ServiceError>?>(nil)
        let early = describe(volume, harness, Self.here) { result in
            late.withLock { $0 = result }
            done.signal()
        }
        #expect(early == nil)
        try #require(done.wait(timeout: .now() + 60) == .success)
        #expect(try late.withLock { $0 }?.get().volume?.volumeID == volume)
    }

    @Test("What nobody waits for is not looked up") func deadlines() throws {
        let harness = try ServiceHarness()
        let volume = try harness.createVolume().volumeID
        let late = CallContext(account: ServiceHarness.alice.account, deadline: 1, mayAnswerHere: true)
        let outcome = try #require(describe(volume, harness, late))
        #expect(throws: ServiceError.self) { try outcome.get() }
    }
}
