import CairnCore
import Glibc
import Testing

@testable import CairnLog

/// Each call of the storage fails in turn: the log is fenced, nothing is tried again, and recovery finds all that was durable.
@Suite struct FailureTests {
    @Test(arguments: [false, true]) func everyCallOfAScriptFails(tear: Bool) throws {
        var call = 1
        var isComplete = false
        while !isComplete {
            let storage = SimulatedStorage()
            let log = try newLog(storage)
            storage.inject(tear ? .tear(call: call, code: EIO) : .fail(call: call, code: EIO))
            var held = ModelIndex()
            var durable = 0
            var attempted = 0
            var failure: LogError?
            do throws(LogError) {
                for number in 0..<14 {
                    attempted = number + 1
                    try write(log, bytes: 250_000, commit: [UInt8(number)], sync: number % 4 != 0)
                    durable = Int(log.durable.rawValue)
                    if number == 7 {
                        // The index is flushed, and names nothing in the segments before.
                        let checkpoint = log.position!
                        try log.sync()
                        held = ModelIndex(commits: (0...7).map { [UInt8($0)] }, position: checkpoint)
                        for segment in log.segments where segment.use == .closed && segment.id != checkpoint.segment {
                            log.recycle(segment.id, checkpoint: checkpoint)
                        }
                    }
                }
                try log.sync()
                durable = 14
                isComplete = true
            } catch { failure = error }

            if !isComplete {
                guard case .io(let error) = failure else {
                    Issue.record("\(String(describing: failure))")
                    return
                }
                #expect(error.code == EIO && log.isFenced)
                let calls = storage.calls
                #expect(throws: LogError.fenced) { try write(log, bytes: 1, commit: [1]) }
                #expect(throws: LogError.fenced) { try log.sync() }
                #expect(throws: LogError.fenced) { try log.refill() }
                #expect(throws: LogError.fenced) { try log.close() }
                #expect(storage.calls == calls)
            }
            storage.crash { _, sector in sector % 3 == 0 }
            _ = try recover(storage, &held)
            #expect(held.commits.count >= durable && held.commits.count <= attempted, "call \(call)")
            #expect(held.commits == (0..<held.commits.count).map { [UInt8($0)] })
            call += 1
        }
        #expect(call > 20)
    }

    @Test func noSpaceForAWriteFences() throws {
        let storage = SimulatedStorage()
        let log = try newLog(storage)
        storage.inject(.fail(call: 1, code: ENOSPC))
        #expect(throws: LogError.io(StorageError(operation: .write, code: ENOSPC, segment: SegmentID(1)))) {
            try write(log, bytes: 1, commit: [1])
        }
        #expect(log.isFenced)
    }

    @Test func aFailedSyncFencesAndIsNotRepeated() throws {
        let storage = SimulatedStorage()
        let log = try newLog(storage)
        try write(log, bytes: 1000, commit: [1], sync: false)
        storage.inject(.fail(call: 1, code: EIO))
        #expect(throws: LogError.io(StorageError(operation: .sync, code: EIO, segment: SegmentID(1)))) {
            try log.sync()
        }
        #expect(throws: LogError.fenced) { try log.sync() }
        #expect(storage.calls == 1 && log.durable == .none)
    }

    @Test func aFailureOfRecoveryIsReportedAndCanBeRepeated() throws {
        let original = SimulatedStorage()
        let log = try newLog(original)
        for number in 0..<9 { try write(log, bytes: 250_000, commit: [UInt8(number)]) }
        for call in 1...40 {
            let storage = original.copy()
            storage.inject(.tear(call: call, code: EIO))
            var index = ModelIndex()
            _ = try? recover(storage, &index)
            storage.inject(nil)
            _ = try recover(storage, &index)
            #expect(index.commits.count == 9)
        }
    }
}
