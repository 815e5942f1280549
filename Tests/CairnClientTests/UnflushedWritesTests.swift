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
        // What was written over in its middle is two writes: settling one leaves the other.
        writes.add(100..<200, .hole, verifier: [2])
        let lost = writes.lost(through: mark, verifier: [2])
        #expect(lost.map(\.range) == [0..<100, 200..<512])
        writes.settled(Array(lost.prefix(1)))
        #expect(writes.lost(through: mark, verifier: [2]).map(\.range) == [200..<512])
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

        var visible: [UInt8] {
            volatile.reduce(into: durable) { image, write in image.replaceSubrange(write.0, with: write.1) }
        }
        mutating func crash() {
            volatile = []
            verifier += 1
        }
    }
    let state: Mutex<State>
    let volume = VolumeID(.random(shard: ShardIndex(0)))
    init(size: Int) { state = Mutex(State(durable: [UInt8](repeating: 0, count: size))) }

    func start(
        _ call: OutgoingCall,
        completion: @escaping @Sendable (Result<Answer, ClientError>) -> Void
    ) -> any Cancellable {
        completion(
            Result { try answer(call) }.mapError { error in
                guard let error = error as? CallError else { return ClientError(.protocolViolation, "\(error)") }
                return ClientError(.answered, error.text, answer: error)
            }
        )
        return NoCancel()
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
}
