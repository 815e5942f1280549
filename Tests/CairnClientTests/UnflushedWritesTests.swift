import CairnCore
import CairnRPC
import CairnTesting
import CairnWire
import Synchronization
import Testing

@testable import CairnClient

struct UnflushedWritesTests {
    @Test("U8: of each byte the newest write is kept, whatever overlaps")
    func newestWins() {
        var random = SeededRandom(seed: 31)
        for _ in 0..<200 {
            var writes = UnflushedWrites()
            var model = [UInt8](repeating: 0, count: 64)
            for step in 1...20 {
                let start = Int(random.next() % 60)
                let end = min(64, start + 1 + Int(random.next() % 20))
                let bytes = [UInt8](repeating: UInt8(step), count: end - start)
                writes.add(UInt64(start)..<UInt64(end), .bytes(Buffer(copying: bytes).slice), verifier: [1])
                model.replaceSubrange(start..<end, with: bytes)
            }
            var image = [UInt8](repeating: 0, count: 64)
            var end: UInt64 = 0
            for write in writes.writes {
                #expect(write.range.lowerBound >= end, "in order, without overlaps")
                end = write.range.upperBound
                guard case .bytes(let slice) = write.content else { continue }
                image.replaceSubrange(Int(write.range.lowerBound)..<Int(end), with: Array(slice.bytes))
            }
            #expect(image == model)
            #expect(writes.heldBytes == model.count { $0 != 0 })
        }
    }

    @Test("U8: a flush forgets what this server was sent before it, and nothing else")
    func flushed() {
        var writes = UnflushedWrites()
        writes.add(0..<512, .zeros, verifier: [1])
        writes.add(512..<1024, .hole, verifier: [2])
        let mark = writes.last
        writes.add(1024..<1536, .zeros, verifier: [2])
        writes.flushed(through: mark, verifier: [2])
        #expect(writes.writes.map(\.range) == [0..<512, 1024..<1536])
        #expect(writes.lost(through: mark, verifier: [2]).map(\.range) == [0..<512])
        // What was written over in its middle is two writes, around the one that is to be sent in its place: settling one leaves
        // the others.
        writes.add(100..<200, .hole, verifier: [2])
        let lost = writes.lost(through: mark, verifier: [2])
        #expect(lost.map(\.range) == [0..<100, 100..<200, 200..<512])
        writes.settled(Array(lost.prefix(1)))
        #expect(writes.lost(through: mark, verifier: [2]).map(\.range) == [100..<200, 200..<512])
    }

    @Test("U8: what took the place of a promised write during the flush is sent again, unless one server had both")
    func replacedDuringTheFlush() {
        // The verifiers of the first write, of the second one, and of the flush between them.
        func lost(_ first: UInt8, _ second: UInt8, flush: UInt8) -> [Range<UInt64>] {
            var writes = UnflushedWrites()
            writes.add(0..<1024, .zeros, verifier: [first])
            let mark = writes.last
            writes.add(512..<2048, .hole, verifier: [second])
            // Nothing was promised of this one.
            writes.add(4096..<4608, .hole, verifier: [9])
            writes.flushed(through: mark, verifier: [flush])
            return writes.lost(through: mark, verifier: [flush]).map(\.range)
        }
        #expect(lost(1, 1, flush: 1) == [])
        #expect(lost(1, 1, flush: 2) == [0..<512, 512..<2048])
        #expect(lost(1, 2, flush: 2) == [0..<512, 512..<2048])
        #expect(lost(1, 2, flush: 1) == [512..<2048])
        // What was replaced twice counts as well, and a part of it as the whole.
        var writes = UnflushedWrites()
        writes.add(0..<1024, .zeros, verifier: [1])
        let mark = writes.last
        writes.add(0..<1024, .zeros, verifier: [2])
        writes.add(0..<2048, .zeros, verifier: [2])
        writes.add(512..<1024, .zeros, verifier: [2])
        writes.flushed(through: mark, verifier: [2])
        #expect(writes.lost(through: mark, verifier: [2]).map(\.range) == [0..<512, 512..<1024, 1024..<2048])
        #expect(writes.lost(through: mark - 1, verifier: [2]).isEmpty)
    }
}

/// A volume whose memory can be lost: what was not flushed is gone then, and the verifier is another.
private final class VolatileServer: Caller {
    struct State {
        var durable: [UInt8]
        var volatile: [(Range<Int>, [UInt8])] = []
        var verifier: UInt8 = 1
        var uploads = 0
        /// After this many uploads the memory is lost.
        var crashAfter: Int?
        var failsUploads = false
        /// Methods whose calls are held until they are released; whether they are carried out when they come, or then.
        var holds: [UInt32: Bool] = [:]
        var held: [HeldCall] = []

        var visible: [UInt8] {
            volatile.reduce(into: durable) { image, write in image.replaceSubrange(write.0, with: write.1) }
        }
        mutating func crash() {
            volatile = []
            verifier += 1
        }
    }
    struct HeldCall {
        let call: OutgoingCall
        /// Nil: it is carried out when it is released, as one that had to be repeated is.
        let result: Result<Answer, ClientError>?
        let completion: @Sendable (Result<Answer, ClientError>) -> Void
    }
    let state: Mutex<State>
    let volume = VolumeID(.random(shard: ShardIndex(0)))
    init(size: Int) { state = Mutex(State(durable: [UInt8](repeating: 0, count: size))) }

    /// Holds the answers of a method from now on.
    /// - Parameter carriedOut: whether its calls are carried out when they come; if not, when they are released.
    func hold(_ method: Wire.Method, carriedOut: Bool) {
        state.withLock { $0.holds[UInt32(method.rawValue)] = carriedOut }
    }

    /// Waits for a call of a method to be held.
    func waitForHeld(_ method: Wire.Method) async throws {
        while !state.withLock({ $0.held.contains { $0.call.method == UInt32(method.rawValue) } }) {
            try await Task.sleep(for: .microseconds(100))
        }
    }

    /// Answers what is held of a method, and holds no more.
    func release(_ method: Wire.Method) {
        let held = state.withLock { state -> [HeldCall] in
            state.holds[UInt32(method.rawValue)] = nil
            let held = state.held.filter { $0.call.method == UInt32(method.rawValue) }
            state.held.removeAll { $0.call.method == UInt32(method.rawValue) }
            return held
        }
        for held in held { held.completion(held.result ?? result(of: held.call)) }
    }

    func start(
        _ call: OutgoingCall,
        completion: @escaping @Sendable (Result<Answer, ClientError>) -> Void
    ) -> any Cancellable {
        guard let isCarriedOut = state.withLock({ $0.holds[call.method] }) else {
            completion(result(of: call))
            return NoCancel()
        }
        let early = isCarriedOut ? result(of: call) : nil
        state.withLock { $0.held.append(HeldCall(call: call, result: early, completion: completion)) }
        return NoCancel()
    }

    private func result(of call: OutgoingCall) -> Result<Answer, ClientError> {
        Result { try answer(call) }.mapError { error in
            guard let error = error as? CallError else { return ClientError(.protocolViolation, "\(error)") }
            return ClientError(.answered, error.text, answer: error)
        }
    }
    private final class NoCancel: Cancellable { func cancel() {} }

    private func answer(_ call: OutgoingCall) throws -> Answer {
        let payload = call.payload.flatMap { Array($0.bytes) }
        let message: [UInt8] = try state.withLock { state in
            switch Wire.Method(rawValue: Int32(call.method)) {
            case .uploadBlock: try upload(try .decode(call.message), payload, &state).encode()
            case .writeZeroes: try zero(try .decode(call.message), &state).encode()
            case .flush: flush(&state).encode()
            case .describeVolume: describe(state).encode()
            default: throw CallError(.unknownMethod)
            }
        }
        return Answer(message: message, payload: nil)
    }

    private func upload(
        _ request: Wire.UploadBlockRequest,
        _ payload: [UInt8],
        _ state: inout State
    ) throws -> Wire.UploadBlockResponse {
        guard !state.failsUploads else { throw CallError(.storeFull, "", retryable: false) }
        var at = 0
        for block in request.blocks {
            let range = Int(block.offset)..<Int(block.offset) + Int(block.length)
            var bytes = [UInt8](repeating: 0, count: range.count)
            if case .payloadLength(let count) = block.source {
                bytes = Array(payload[at..<at + Int(count)])
                at += Int(count)
            }
            state.volatile.append((range, bytes))
        }
        let verifier = state.verifier
        if request.durability != .onFlush { _ = flush(&state) }
        state.uploads += 1
        if state.uploads == state.crashAfter { state.crash() }
        return Wire.UploadBlockResponse(writeVerifier: [verifier])
    }

    private func zero(_ request: Wire.WriteZeroesRequest, _ state: inout State) throws -> Wire.WriteZeroesResponse {
        for range in request.ranges {
            let range = Int(range.offset)..<Int(range.offset + range.length)
            state.volatile.append((range, [UInt8](repeating: 0, count: range.count)))
        }
        return Wire.WriteZeroesResponse(writeVerifier: [state.verifier])
    }

    private func describe(_ state: State) -> Wire.DescribeVolumeResponse {
        var description = Wire.VolumeDescription()
        description.volumeID = volume.bytes
        description.size = UInt64(state.durable.count)
        description.chunkSize = 4096
        return Wire.DescribeVolumeResponse(volume: description)
    }

    private func flush(_ state: inout State) -> Wire.FlushResponse {
        state.durable = state.visible
        state.volatile = []
        return Wire.FlushResponse(writeVerifier: [state.verifier])
    }
}

struct FlushedWriterTests {
    @Test("U8: what a server lost before a flush is sent again, and nothing older over newer", arguments: 0..<20)
    func crashes(seed: UInt64) async throws {
        var random = SeededRandom(seed: seed)
        let server = VolatileServer(size: 64 * 512)
        let writer = FlushedWriter(client: Client(caller: server), volume: server.volume)
        var model = [UInt8](repeating: 0, count: 64 * 512)
        for step in 0..<60 {
            if random.next() % 8 == 0 { server.state.withLock { $0.crash() } }
            let sector = Int(random.next() % 60)
            let count = 1 + Int(random.next() % 4)
            let range = sector * 512..<(sector + count) * 512
            if random.next() % 5 == 0 {
                try await writer.writeZeroes(BlockRange(offset: UInt64(range.lowerBound), length: UInt64(range.count)))
                model.replaceSubrange(range, with: [UInt8](repeating: 0, count: range.count))
            } else {
                let bytes = random.bytes(range.count)
                try await writer.write(Buffer(copying: bytes).slice, at: UInt64(range.lowerBound))
                model.replaceSubrange(range, with: bytes)
            }
            guard step % 7 == 6 else { continue }
            try await writer.flush()
            #expect(server.state.withLock { $0.durable } == model)
            #expect(await writer.unflushedBytes == 0)
        }
    }

    @Test("U8: beyond the limit a write flushes first; a server that stays is sent nothing twice")
    func limit() async throws {
        let server = VolatileServer(size: 64 * 512)
        let writer = FlushedWriter(client: Client(caller: server), volume: server.volume, limit: 2048)
        for sector in 0..<16 {
            let bytes = [UInt8](repeating: UInt8(sector + 1), count: 512)
            try await writer.write(Buffer(copying: bytes).slice, at: UInt64(sector * 512))
            #expect(await writer.unflushedBytes <= 2048)
        }
        #expect(server.state.withLock { $0.uploads } == 16)
        #expect(await writer.resentBytes == 0)
        #expect(server.state.withLock { $0.durable[11 * 512] } == 12)
    }

    @Test("U8: a flush that fails forgets nothing")
    func failure() async throws {
        let server = VolatileServer(size: 64 * 512)
        let writer = FlushedWriter(client: Client(caller: server), volume: server.volume)
        let bytes = [UInt8](repeating: 7, count: 1024)
        try await writer.write(Buffer(copying: bytes).slice, at: 512)
        server.state.withLock { state in
            state.crash()
            state.failsUploads = true
        }
        await #expect(throws: ClientError.self) { try await writer.flush() }
        #expect(await writer.unflushedBytes == 1024)
        server.state.withLock { $0.failsUploads = false }
        try await writer.flush()
        #expect(server.state.withLock { Array($0.durable[512..<1536]) } == bytes)
        #expect(await writer.resentBytes == 1024)
    }

    /// Sectors that hold one value of 16 bits.
    private static func sectors(_ value: Int, _ count: Int) -> [UInt8] {
        (0..<count * 512).map { UInt8($0 % 2 == 0 ? value & 255 : value >> 8) }
    }

    @Test("U8: a write over a promised one, made during a flush that a restart overtakes, is durable when it returns")
    func replacedAndLost() async throws {
        let server = VolatileServer(size: 64 * 512)
        let writer = FlushedWriter(client: Client(caller: server), volume: server.volume)
        try await writer.write(Buffer(copying: Self.sectors(1, 2)).slice, at: 0)
        server.hold(.flush, carriedOut: false)
        let flush = Task { try await writer.flush() }
        try await server.waitForHeld(.flush)
        try await writer.write(Buffer(copying: Self.sectors(2, 2)).slice, at: 0)
        server.state.withLock { $0.crash() }
        server.release(.flush)
        try await limited { try await flush.value }
        #expect(server.state.withLock { Array($0.durable.prefix(1024)) } == Self.sectors(2, 2))
    }

    @Test(
        "U8: so is one that was made after the flush was carried out, answered or still under way",
        arguments: [true, false]
    )
    func replacedAfterTheFlush(isAnswered: Bool) async throws {
        let server = VolatileServer(size: 64 * 512)
        let writer = FlushedWriter(client: Client(caller: server), volume: server.volume)
        try await writer.write(Buffer(copying: Self.sectors(1, 2)).slice, at: 0)
        server.state.withLock { $0.crash() }
        server.hold(.flush, carriedOut: true)
        let flush = Task { try await writer.flush() }
        try await server.waitForHeld(.flush)
        if !isAnswered { server.hold(.uploadBlock, carriedOut: true) }
        let write = Task { try await writer.write(Buffer(copying: Self.sectors(2, 2)).slice, at: 0) }
        if isAnswered { try await write.value } else { try await server.waitForHeld(.uploadBlock) }
        server.release(.flush)
        server.release(.uploadBlock)
        try await limited { try await write.value }
        try await limited { try await flush.value }
        server.state.withLock { $0.crash() }
        #expect(server.state.withLock { Array($0.durable.prefix(1024)) } == Self.sectors(2, 2))
        #expect(await writer.unflushedBytes == 0)
    }

    @Test(
        "U8: after any crashes, of each sector the write that was answered before a flush is there, or a newer one",
        arguments: 0..<40
    )
    func crashesDuringFlushes(seed: UInt64) async throws {
        var random = SeededRandom(seed: 500 + seed)
        let server = VolatileServer(size: 32 * 512)
        let writer = FlushedWriter(client: Client(caller: server), volume: server.volume)
        // Of each sector what was written, oldest first; each write has a value of its own.
        var history = [[Int]](repeating: [0], count: 32)
        var value = 0
        func writeSome(_ random: inout SeededRandom) async throws {
            for _ in 0..<random.below(5) {
                if random.chance(20) { server.state.withLock { $0.crash() } }
                let sector = random.below(30)
                let count = 1 + random.below(32 - sector)
                value += 1
                try await writer.write(Buffer(copying: Self.sectors(value, count)).slice, at: UInt64(sector * 512))
                for sector in sector..<sector + count { history[sector].append(value) }
            }
            if random.chance(20) { server.state.withLock { $0.crash() } }
        }
        for _ in 0..<15 {
            try await writeSome(&random)
            let promised = history.map { $0.count - 1 }
            server.hold(.flush, carriedOut: random.chance(50))
            let flush = Task { try await writer.flush() }
            try await server.waitForHeld(.flush)
            try await writeSome(&random)
            server.release(.flush)
            // What is lost may be on its way again.
            try await writeSome(&random)
            try await limited { try await flush.value }
            if random.chance(50) { try await writeSome(&random) }
            server.state.withLock { $0.crash() }
            let durable = server.state.withLock { $0.durable }
            for sector in 0..<32 {
                let found = Int(durable[sector * 512]) | Int(durable[sector * 512 + 1]) << 8
                let place = history[sector].firstIndex(of: found)
                #expect((place ?? -1) >= promised[sector], "sector \(sector) holds \(found) of \(history[sector])")
            }
        }
    }
}
