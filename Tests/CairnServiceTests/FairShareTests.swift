import CairnCore
import CairnStore
import CairnWire
import Dispatch
import Synchronization
import Testing

@testable import CairnService

/// What a call costs its account's share of the workers (SPEC R3).
@Suite struct FairShareTests {
    /// The order in which a call of Alice's and 20 small jobs of Bob's begin, all of which wait for the one worker.
    private func order(_ harness: ServiceHarness, _ begin: (CallContext) -> Void) throws -> [String] {
        let order = Mutex<[String]>([])
        let gate = DispatchSemaphore(value: 0)
        let done = DispatchGroup()
        harness.service.workers.run { gate.wait() }
        let alice = CallContext(account: ServiceHarness.alice.account) {
            order.withLock { $0.append("alice") }
            return false
        }
        begin(alice)
        for _ in 0..<20 {
            done.enter()
            harness.service.workers.run(for: ServiceHarness.bob.account) {
                order.withLock { $0.append("bob") }
                done.leave()
            }
        }
        gate.signal()
        guard done.wait(timeout: .now() + 60) == .success else { throw ServiceError(.deadlineExceeded, "no answer") }
        return order.withLock { $0 }
    }

    private func packed(_ count: Int) throws -> [UInt8] {
        let raw = [UInt8](repeating: 7, count: count)
        let target = Buffer(copying: [UInt8](repeating: 0, count: count / 16))
        let isPacked = raw.withUnsafeBytes { LZ4.compress($0, into: target.memory) }
        return Array(target.memory[0..<(try #require(isPacked))])
    }

    private func lz4(_ count: Int, to volume: [UInt8]) throws -> (Wire.UploadBlockRequest, [UInt8]) {
        let chunk = 4 << 20
        let bytes = try packed(chunk)
        let checksum = [UInt8](repeating: 7, count: chunk).withUnsafeBytes { Checksum.encode(CRC32C.extend(0, $0)) }
        var request = Wire.UploadBlockRequest(target: .init(target: .volumeID(volume)))
        for index in 0..<count {
            var block = Wire.UploadBlock(offset: UInt64(index * chunk), length: UInt32(chunk), codec: .lz4)
            block.checksum = Wire.Checksum(algorithm: .crc32c, value: checksum)
            block.source = .payloadLength(UInt32(bytes.count))
            request.blocks.append(block)
        }
        return (request, Array((0..<count).map { _ in bytes }.joined()))
    }

    private static func single(_ options: inout ServiceOptions) { options.workers = 1 }

    @Test("R3, A2: an upload of LZ4 costs what it decodes to, and is prepared in steps")
    func lz4Costs() throws {
        let harness = try ServiceHarness(chunkSize: 4 << 20, segmentBytes: 64 << 20) { Self.single(&$1) }
        let volume = try harness.createVolume(.init(size: 256 << 20)).volumeID
        let (request, payload) = try lz4(12, to: volume)
        let answer = Waiter<Wire.UploadBlockResponse>()
        let order = try order(harness) { context in
            let bytes = Buffer(copying: payload).slice
            harness.service.uploadBlock(request, payload: bytes, context) { answer.set($0) }
        }
        // What comes in is a thousandth of it.
        #expect(order.prefix(16).allSatisfy { $0 == "bob" })
        #expect(try answer.get().chunks.count == 12)
        let read = try harness.read(.volumeID(volume), 44 << 20, 4 << 20)
        #expect(read == [UInt8](repeating: 7, count: 4 << 20))
        // A small account's job comes in between the steps of one call.
        let looks = Mutex(0)
        let counting = CallContext(account: ServiceHarness.alice.account) {
            looks.withLock { $0 += 1 }
            return false
        }
        _ = try harness.upload(request, payload: payload, as: counting)
        // Each of three steps, the call's begin, before and in its commit.
        #expect(looks.withLock { $0 } >= 6)
    }

    @Test("R3: pages of blocks, changes, snapshots and volumes cost what they look up")
    func listings() throws {
        let harness = try ServiceHarness { Self.single(&$1) }
        let service = harness.service
        let volume = try harness.createVolume().volumeID
        let snapshot = try harness.begin(volume).snapshotID
        let page = Wire.PageRequest(limit: 8192)
        let target = Wire.Target(target: .volumeID(volume))
        let blocks = try order(harness) {
            service.listBlocks(.init(target: target, page: page), $0) { _ in }
        }
        let changed = try order(harness) {
            let older = Wire.Target(target: .snapshotID(snapshot))
            service.listChangedBlocks(.init(older: older, newer: target, page: page), $0) { _ in }
        }
        let snapshots = try order(harness) { service.listSnapshots(.init(page: .init(limit: 1000)), $0) { _ in } }
        let usage = try order(harness) { service.getUsage(.init(), $0) { _ in } }
        for order in [blocks, changed, snapshots, usage] {
            #expect(order.first == "bob" && order.prefix(16).allSatisfy { $0 == "bob" }, "\(order)")
        }
    }

    @Test("R3, S5: what is expected and came in parts is hashed some at a time; the page token goes on")
    func missingBlocks() throws {
        let harness = try ServiceHarness(chunkSize: 4 << 20, shards: 1)
        let volume = try harness.localVolume(size: 32 << 20)
        let token = [UInt8](repeating: 9, count: 32)
        let snapshot = try harness.begin(volume) { request in
            request.expected = (0..<8).map { Wire.ChunkPlacement(offset: $0 << 22, token: token) }
        }.snapshotID
        let target = Wire.Target(target: .snapshotID(snapshot))
        // Parts of chunks over nothing: unmerged as long as they are few.
        _ = try harness.call(
            harness.service.writeZeroes,
            .init(target: target, ranges: (0..<8).map { .init(offset: $0 << 22, length: 512) })
        )
        var offsets: [UInt64] = []
        var pages = 0
        var request = Wire.MissingBlocksRequest(target: .snapshotID(snapshot), page: .init(limit: 1000))
        repeat {
            let answer = try harness.call(harness.service.missingBlocks, request)
            offsets += answer.missing.map(\.offset)
            request.page = .init(limit: 1000, pageToken: answer.nextPageToken)
            pages += 1
            #expect(answer.missing.count <= 4)
        } while request.page?.pageToken.isEmpty == false && pages < 10
        #expect(offsets == (0..<8).map { $0 << 22 } && pages == 2)
        // Completion looks at all of them.
        let refused = refusal { try harness.report(100, snapshot) }
        #expect(refused?.code == .failedPrecondition && refused?.text.contains("8 expected chunks") == true)
    }

    @Test("R2, R3: accounts wait for one another's walks; a second one of the same is THROTTLED")
    func usageGate() throws {
        let gate = UsageGate()
        let begin = DispatchSemaphore(value: 0)
        func account(_ number: Int) -> AccountID { AccountID("account-\(number)")! }
        var answers: [Waiter<Int>] = []
        for number in 0..<6 {
            let waiter = Waiter<Int>()
            answers.append(waiter)
            try gate.run(for: account(number), { waiter.set($0) }) {
                begin.wait()
                return number
            }
        }
        for number in [0, 5] {
            let refused = refusal { try gate.run(for: account(number), { (_: Result<Int, ServiceError>) in }) { 0 } }
            #expect(refused?.code == .throttled)
        }
        for _ in 0..<6 { begin.signal() }
        for (number, answer) in answers.enumerated() { #expect(try answer.get() == number) }
        // Who was answered may ask again.
        let again = Waiter<Int>()
        try gate.run(for: account(0), { again.set($0) }) { 7 }
        #expect(try again.get() == 7)
    }
}
