import CairnCore
import CairnCrypto
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
            try gate.run(CallContext(account: account(number)), waiting: 60_000, { waiter.set($0) }) { _ in
                begin.wait()
                return number
            }
        }
        for number in [0, 5] {
            let refused = refusal {
                let context = CallContext(account: account(number))
                try gate.run(context, waiting: 60_000, { (_: Result<Int, ServiceError>) in }) { _ in 0 }
            }
            #expect(refused?.code == .throttled)
        }
        for _ in 0..<6 { begin.signal() }
        for (number, answer) in answers.enumerated() { #expect(try answer.get() == number) }
        // Who was answered may ask again.
        let again = Waiter<Int>()
        try gate.run(CallContext(account: account(0)), waiting: 60_000, { again.set($0) }) { _ in 7 }
        #expect(try again.get() == 7)
    }

    /// As many walks as run at a time, which end when they are told to; the gate's other callers wait for them.
    private func occupy(_ gate: UsageGate, until end: DispatchSemaphore) throws -> [Waiter<Int>] {
        try (0..<UsageGate.running).map { number in
            let waiter = Waiter<Int>()
            let context = CallContext(account: AccountID("large-\(number)")!)
            try gate.run(context, waiting: 60_000, { waiter.set($0) }) { _ in
                end.wait()
                return number
            }
            return waiter
        }
    }

    @Test(
        "R2, R3: who waits for others' walks and is cancelled, or waits too long, is answered then; its account is free"
    )
    func usageGateWaits() throws {
        let gate = UsageGate()
        let end = DispatchSemaphore(value: 0)
        let walks = try occupy(gate, until: end)
        let small = AccountID("small")!
        func ask(_ context: CallContext, waiting: UInt64 = 60_000) throws -> Waiter<Int> {
            let waiter = Waiter<Int>()
            try gate.run(context, waiting: waiting, { waiter.set($0) }) { _ in 7 }
            return waiter
        }
        // Past the caller's deadline, then past the server's limit.
        let soon = DispatchTime.now().uptimeNanoseconds + 50_000_000
        let late = try ask(CallContext(account: small, deadline: soon))
        #expect(refusal { try late.get() }?.code == .deadlineExceeded)
        let long = try ask(CallContext(account: small), waiting: 50)
        #expect(refusal { try long.get() }?.code == .throttled)
        // Cancelled: the account's next call need not wait until that is noticed.
        let isGone = Mutex(false)
        let gone = try ask(CallContext(account: small) { isGone.withLock { $0 } })
        #expect(refusal { try ask(CallContext(account: small)) }?.code == .throttled)
        isGone.withLock { $0 = true }
        let next = try ask(CallContext(account: small))
        #expect(refusal { try gone.get() }?.code == .cancelled)
        for _ in walks { end.signal() }
        #expect(try next.get() == 7)
        for (number, walk) in walks.enumerated() { #expect(try walk.get() == number) }
    }

    @Test(
        "R2, R3: long walks give way: another account's short one is answered while they go on, and each of them goes on"
    )
    func usageGateTurns() throws {
        let gate = UsageGate()
        let isOver = Mutex(false)
        let large = try (0..<4).map { number in
            let waiter = Waiter<Int>()
            let context = CallContext(account: AccountID("large-\(number)")!)
            try gate.run(context, waiting: 60_000, { waiter.set($0) }) { turn in
                while !isOver.withLock({ $0 }) { turn.giveWay() }
                return number
            }
            return waiter
        }
        for number in 0..<3 {
            let small = Waiter<Int>()
            try gate.run(CallContext(account: AccountID("small-\(number)")!), waiting: 60_000, { small.set($0) }) { _ in
                7
            }
            #expect(try small.get() == 7)
        }
        isOver.withLock { $0 = true }
        for (number, walk) in large.enumerated() { #expect(try walk.get() == number) }
    }

    /// A call's looks at whether it is still wanted: each step has one.
    private func looks(_ call: (CallContext) throws -> Void) rethrows -> Int {
        let looks = Mutex(0)
        try call(
            CallContext(account: ServiceHarness.alice.account) {
                looks.withLock { $0 += 1 }
                return false
            }
        )
        return looks.withLock { $0 }
    }

    private func tokens(_ count: Int) -> [[UInt8]] {
        (0..<count).map { index in withUnsafeBytes(of: index) { Array($0) } + [UInt8](repeating: 1, count: 24) }
    }

    @Test("R3, A1, U7: calls that name many tokens cost a look-up for each, and are carried out in steps")
    func tokenCosts() throws {
        let harness = try ServiceHarness(shards: 1) { Self.single(&$1) }
        let service = harness.service
        let volume = try harness.createVolume().volumeID
        let many = tokens(16384)
        let query = try order(harness) { service.queryChunks(.init(tokens: many), $0) { _ in } }
        let renewal = try order(harness) { service.renewLease(.init(tokens: many), $0) { _ in } }
        let release = try order(harness) { service.releaseLease(.init(tokens: many), $0) { _ in } }
        let named = try order(harness) { context in
            var request = Wire.UploadBlockRequest(target: .init(target: .volumeID(volume)))
            request.blocks = many.prefix(64).enumerated().map { index, token in
                Wire.UploadBlock(offset: UInt64(index) << 16, length: 65536, source: .token(token))
            }
            service.uploadBlock(request, payload: nil, context) { _ in }
        }
        for order in [query, renewal, release, named] {
            #expect(order.first == "bob" && order.prefix(16).allSatisfy { $0 == "bob" }, "\(order)")
        }
        let steps = try looks { context in
            let answer = try harness.call(service.queryChunks, .init(tokens: many), as: context)
            #expect(answer.present.count == 2048 && answer.present.allSatisfy { $0 == 0 })
        }
        #expect(steps > 16384 / Workers.lookUpsPerJob)
        // It ends between them where nobody waits any more.
        let left = Mutex(3)
        let gone = CallContext(account: ServiceHarness.alice.account) {
            left.withLock { left in
                left -= 1
                return left < 0
            }
        }
        #expect(refusal { try harness.call(service.queryChunks, .init(tokens: many), as: gone) }?.code == .cancelled)
        #expect(left.withLock { $0 } == -1)
    }

    @Test("R3, V10: chunks that an upload names on another shard are read and hashed some at a time")
    func foreignTokens() throws {
        let harness = try ServiceHarness(chunkSize: 4 << 20, segmentBytes: 64 << 20)
        let chunk = 4 << 20
        let home = harness.service.homeShard(of: ServiceHarness.alice.account).index
        var volume: [UInt8] = []
        for key in 0..<64 as Range<UInt8> where volume.isEmpty {
            let id = try harness.createVolume(.init(size: 64 << 20, affinity: [key])).volumeID
            if VolumeID(bytes: id)!.uuid.shard != home { volume = id }
        }
        try #require(!volume.isEmpty)
        var tokens: [[UInt8]] = []
        for index in 0..<12 as Range<UInt8> {
            let bytes = [UInt8](repeating: index + 1, count: chunk)
            let staging = Wire.UploadBlockRequest(blocks: [ServiceHarness.block(bytes, at: 0)])
            tokens.append(try #require(try harness.upload(staging, payload: bytes).chunks.first).token)
        }
        var request = Wire.UploadBlockRequest(target: .init(target: .volumeID(volume)))
        request.blocks = tokens.enumerated().map { index, token in
            Wire.UploadBlock(offset: UInt64(index * chunk), length: UInt32(chunk), source: .token(token))
        }
        // The call's begin, its preparation, three steps of four chunks, before and in its commit.
        #expect(try looks { _ = try harness.upload(request, as: $0) } >= 7)
        #expect(try harness.read(.volumeID(volume), UInt64(11 * chunk), 512) == [UInt8](repeating: 12, count: 512))
    }

    @Test("R3, S5: a chunk list costs its look-ups, step by step")
    func listCosts() throws {
        let harness = try ServiceHarness(chunkSize: 4096, shards: 1) { Self.single(&$1) }
        let volume = try harness.localVolume(size: 64 << 20)
        let zero = ZeroChunk.fingerprint(.minimum).bytes
        var request = Wire.CreateSnapshotRequest(volumeID: volume)
        request.chunks = (0..<8192).map { Wire.ChunkPlacement(offset: $0 << 12, token: zero) }
        let answer = Waiter<Wire.CreateSnapshotResponse>()
        let list = request
        let order = try order(harness) { harness.service.createSnapshot(list, $0) { answer.set($0) } }
        // It has begun; what costs waits for the others.
        #expect(order.first == "alice" && order.dropFirst().prefix(20).allSatisfy { $0 == "bob" }, "\(order)")
        _ = try answer.get()
    }
}
