import CairnCore
import CairnCrypto
import CairnRPC
import CairnWire
import Dispatch
import Synchronization

@testable import CairnClient

/// One volume in memory behind the calls of a transfer: enough of a server to drive the client's logic, and strict about
/// what it is sent.
final class FakeServer: Caller {
    enum Chunk: Equatable {
        case zeros
        case data(Fingerprint)
        case patched([UInt8])
    }
    struct State {
        var size: UInt64
        var chunks: [UInt64: Chunk] = [:]
        var store: [Fingerprint: [UInt8]] = [:]
        /// How often each chunk came with its bytes.
        var received: [Fingerprint: Int] = [:]
        var uploads = 0
        var queries = 0
        var downloadedBytes = 0
        /// Answers `present` in QueryChunks, but refuses the token: a lease that was lost.
        var lostLeases: Set<Fingerprint> = []
        /// The n-th upload fails with this.
        var failures: [Int: CallError] = [:]
        /// Flips a byte of what is downloaded.
        var corrupts = false
        var pageItems = 7
        var seal: Fingerprint?
        /// Seals of the LOCAL volume's snapshots are not told yet, or not at all.
        var isSealPending = false
        var isSealWithheld = false
        /// ListBlocks is answered PERMISSION_DENIED: there is data of an account that grants USE only.
        var refusesListing = false
        /// The volume was made of a snapshot that is in progress: more may show through.
        var isUnsettled = false
        /// Chunks that uploads said anything of.
        var written: Set<UInt64> = []
        var inFlight = 0
        var mostInFlight = 0
        /// Tokens that downloads named as known, and blocks that were answered so.
        var namedKnown = 0
        var answeredKnown = 0
        var kind = Wire.VolumeKind.remote
        /// Of a LOCAL volume: its snapshots, in creation order.
        var local: [LocalSnapshot] = []
        var lastVersion: UInt64 = 1

        /// What a target holds: of snapshots that the fake does not know, the volume's.
        subscript(target: Wire.Target?) -> [UInt64: Chunk] {
            get { place(target).map { local[$0].chunks } ?? chunks }
            set { if let place = place(target) { local[place].chunks = newValue } else { chunks = newValue } }
        }
        private func place(_ target: Wire.Target?) -> Int? {
            guard case .snapshotID(let id) = target?.target else { return nil }
            return local.firstIndex { $0.id.bytes == id }
        }
    }
    let chunkSize: ChunkSize
    let state: Mutex<State>
    let volume = VolumeID(.random(shard: ShardIndex(0)))
    let snapshot = SnapshotID(.random(shard: ShardIndex(0)))
    private let queue = DispatchQueue(label: "fake", attributes: .concurrent)

    init(size: UInt64, chunkSize: ChunkSize = ChunkSize(bytes: 4096)!) {
        self.chunkSize = chunkSize
        state = Mutex(State(size: size))
    }

    final class Ticket: Cancellable {
        let finished = Mutex(false)
        let completion: @Sendable (Result<Answer, ClientError>) -> Void
        init(_ completion: @escaping @Sendable (Result<Answer, ClientError>) -> Void) { self.completion = completion }
        func finish(_ result: Result<Answer, ClientError>) {
            let first = finished.withLock { done in
                defer { done = true }
                return !done
            }
            if first { completion(result) }
        }
        func cancel() { finish(.failure(.cancelled)) }
    }

    @discardableResult
    func start(
        _ call: OutgoingCall,
        completion: @escaping @Sendable (Result<Answer, ClientError>) -> Void
    ) -> any Cancellable {
        let ticket = Ticket(completion)
        let busy = state.withLock { state in
            state.inFlight += 1
            state.mostInFlight = max(state.mostInFlight, state.inFlight)
            return state.inFlight
        }
        queue.asyncAfter(deadline: .now() + .microseconds(100 + 50 * (busy % 5))) {
            let result = self.answer(call)
            self.state.withLock { $0.inFlight -= 1 }
            ticket.finish(result)
        }
        return ticket
    }

    private func answer(_ call: OutgoingCall) -> Result<Answer, ClientError> {
        let payload = call.payload.reduce(into: [UInt8]()) { $0 += Array($1.bytes) }
        do {
            let (message, bytes) = try handle(Wire.Method(rawValue: Int32(call.method)), call.message, payload)
            let slice = bytes.isEmpty ? nil : Buffer(copying: bytes).slice
            return .success(Answer(message: message, payload: slice))
        } catch let error as CallError {
            return .failure(ClientError(.answered, error.description, answer: error))
        } catch {
            return .failure(ClientError(.protocolViolation, "\(error)"))
        }
    }

    private func handle(
        _ method: Wire.Method,
        _ message: [UInt8],
        _ payload: [UInt8]
    ) throws -> (message: [UInt8], payload: [UInt8]) {
        switch method {
        case .getServerFacts:
            let facts = Wire.ServerFacts(version: "fake", maxBlocksPerCall: 64, maxTokensPerCall: 64)
            return (Wire.GetServerFactsResponse(facts: facts, identity: "alice").encode(), [])
        case .describeVolume:
            return (Wire.DescribeVolumeResponse(volume: state.withLock { describe($0) }).encode(), [])
        case .describeSnapshot:
            let request = try Wire.DescribeSnapshotRequest.decode(message)
            return (Wire.DescribeSnapshotResponse(snapshot: try describeSnapshot(request)).encode(), [])
        case .listBlocks:
            return (try list(try Wire.ListBlocksRequest.decode(message)).encode(), [])
        case .queryChunks:
            return (try query(try Wire.QueryChunksRequest.decode(message)).encode(), [])
        case .uploadBlock:
            return (try upload(try Wire.UploadBlockRequest.decode(message), payload).encode(), [])
        case .downloadBlock:
            let (answer, bytes) = try download(try Wire.DownloadBlockRequest.decode(message))
            return (answer.encode(), bytes)
        default: return (try handleSnapshotCall(method, message), [])
        }
    }

    private func describe(_ state: State) -> Wire.VolumeDescription {
        var description = Wire.VolumeDescription()
        description.volumeID = volume.bytes
        description.size = state.size
        description.chunkSize = UInt32(chunkSize.bytes)
        description.state = .available
        description.kind = state.kind
        description.dataVersion = state.lastVersion + 1
        description.initialSnapshotID = snapshot.bytes
        if state.isUnsettled { description.sourceSnapshotID = volume.bytes }
        return description
    }

    func describeRemoteSnapshot(_ state: State) -> Wire.SnapshotDescription {
        var description = Wire.SnapshotDescription()
        description.snapshotID = snapshot.bytes
        description.volumeID = volume.bytes
        description.size = state.size
        description.chunkSize = UInt32(chunkSize.bytes)
        description.state = state.isUnsettled ? .inProgress : .complete
        description.seal = state.seal.map { Wire.Seal(pending: false, value: $0.bytes) }
        return description
    }

    func length(of chunk: UInt64, _ size: UInt64) -> Int {
        Int(min(UInt64(chunkSize.bytes), size - chunkSize.offset(of: ChunkIndex(chunk))))
    }

    private func list(_ request: Wire.ListBlocksRequest) throws -> Wire.ListBlocksResponse {
        let after = request.page?.pageToken ?? []
        return try state.withLock { state in
            guard !state.refusesListing else { throw CallError(.permissionDenied) }
            let from = after.isEmpty ? 0 : UInt64(String(decoding: after, as: UTF8.self))!
            let held = state[request.target]
            let chunks = held.keys.filter { $0 >= from }.sorted().prefix(state.pageItems)
            var answer = Wire.ListBlocksResponse()
            for chunk in chunks {
                var block = Wire.BlockDescription()
                block.offset = chunkSize.offset(of: ChunkIndex(chunk))
                block.length = UInt32(length(of: chunk, state.size))
                switch held[chunk]! {
                case .zeros: block.state = .zeros
                case .patched: block.state = .data
                case .data(let fingerprint):
                    block.state = .data
                    block.token = fingerprint.bytes
                }
                answer.blocks.append(block)
            }
            if let last = chunks.last, chunks.count == state.pageItems {
                answer.nextPageToken = Array("\(last + 1)".utf8)
            }
            return answer
        }
    }

    private func query(_ request: Wire.QueryChunksRequest) throws -> Wire.QueryChunksResponse {
        guard request.tokens.count <= 64 else { throw CallError(.invalidArgument, "too many tokens") }
        return state.withLock { state in
            state.queries += 1
            var bits = [UInt8](repeating: 0, count: (request.tokens.count + 7) / 8)
            for (index, token) in request.tokens.enumerated() {
                let fingerprint = Fingerprint(bytes: token)!
                if state.store[fingerprint] != nil || state.lostLeases.contains(fingerprint) {
                    bits[index / 8] |= 1 << UInt8(index % 8)
                }
            }
            return Wire.QueryChunksResponse(present: bits)
        }
    }

    private func upload(_ request: Wire.UploadBlockRequest, _ payload: [UInt8]) throws -> Wire.UploadBlockResponse {
        try state.withLock { state in
            state.uploads += 1
            if let failure = state.failures[state.uploads] { throw failure }
            guard request.blocks.count <= 64 else { throw CallError(.invalidArgument, "too many blocks") }
            try checkSnapshot(request, state)
            var next = state
            var at = 0
            var answer = Wire.UploadBlockResponse()
            var end: UInt64 = 0
            for (index, block) in request.blocks.enumerated() {
                guard block.offset >= end, block.offset + UInt64(block.length) <= state.size, block.length % 512 == 0
                else {
                    throw CallError(.invalidArgument, "order or range", blockIndex: index)
                }
                end = block.offset + UInt64(block.length)
                let token = try apply(block, index, payload, &at, &next, request.target)
                if let token { answer.chunks.append(Wire.WrittenChunk(offset: block.offset, token: token.bytes)) }
            }
            guard at == payload.count else { throw CallError(.invalidArgument, "payload left over") }
            if let progress = request.progress { try next.report(progress.percent, request) }
            state = next
            return answer
        }
    }

    private func apply(
        _ block: Wire.UploadBlock,
        _ index: Int,
        _ payload: [UInt8],
        _ at: inout Int,
        _ state: inout State,
        _ target: Wire.Target?
    ) throws -> Fingerprint? {
        let chunk = chunkSize.chunk(at: block.offset).rawValue
        let isWhole = chunkSize.remainder(of: block.offset) == 0 && Int(block.length) == length(of: chunk, state.size)
        switch block.source {
        case .zeros, .hole:
            guard chunkSize.remainder(of: block.offset) == 0 else { throw CallError(.invalidArgument, "alignment") }
            let range = chunk..<chunkSize.count(for: block.offset + UInt64(block.length))
            for chunk in range { state[target][chunk] = block.source == .hole(Wire.Empty()) ? nil : .zeros }
            state.written.formUnion(range)
            return nil
        case .token(let bytes):
            let fingerprint = Fingerprint(bytes: bytes)!
            guard isWhole, state.store[fingerprint] != nil else {
                throw CallError(.invalidChunkToken, blockIndex: index)
            }
            state[target][chunk] = .data(fingerprint)
            state.written.insert(chunk)
            return fingerprint
        case .payloadLength(let count):
            guard isWhole, at + Int(count) <= payload.count else {
                throw CallError(.invalidArgument, "whole chunks only here")
            }
            var bytes = Array(payload[at..<at + Int(count)])
            at += Int(count)
            if block.codec == .lz4 {
                var raw = [UInt8](repeating: 0, count: chunkSize.bytes)
                let isGood = bytes.withUnsafeBytes { from in
                    raw.withUnsafeMutableBytes { LZ4.decompress(from, into: $0) }
                }
                guard isGood, Int(block.length) == chunkSize.bytes else { throw CallError(.invalidArgument, "LZ4") }
                bytes = raw
            }
            guard bytes.withUnsafeBytes({ Checksum(.crc32c, of: $0) }).wire == block.checksum else {
                throw CallError(.checksumError, blockIndex: index)
            }
            let fingerprint = bytes.withUnsafeBytes { SHA256.hash($0, padding: chunkSize.bytes - bytes.count) }
            state.store[fingerprint] = bytes
            state.received[fingerprint, default: 0] += 1
            state[target][chunk] = .data(fingerprint)
            state.written.insert(chunk)
            return fingerprint
        case nil: throw CallError(.invalidArgument, "no source")
        }
    }
}

extension FakeServer {
    private func download(_ request: Wire.DownloadBlockRequest) throws -> (Wire.DownloadBlockResponse, [UInt8]) {
        state.withLock { state in
            var answer = Wire.DownloadBlockResponse()
            var payload: [UInt8] = []
            let held = state[request.target]
            let known = Set(request.knownTokens.compactMap { Fingerprint(bytes: $0) })
            state.namedKnown += known.count
            for range in request.ranges {
                var offset = range.offset
                while offset < range.offset + range.length {
                    let chunk = chunkSize.chunk(at: offset).rawValue
                    let length = length(of: chunk, state.size)
                    var block = Wire.DownloadedBlock(offset: offset, length: UInt32(length))
                    switch held[chunk] {
                    case nil: block.content = .hole(Wire.Empty())
                    case .zeros: block.content = .zeros(Wire.Empty())
                    case .data(let fingerprint):
                        block.token = fingerprint.bytes
                        add(state.store[fingerprint]!, to: &block, &payload, compress: chunk % 2 == 0)
                    case .patched(let bytes):
                        let fingerprint = bytes.withUnsafeBytes {
                            SHA256.hash($0, padding: chunkSize.bytes - bytes.count)
                        }
                        if known.contains(fingerprint) {
                            state.answeredKnown += 1
                            block.token = fingerprint.bytes
                            block.content = .known(Wire.Empty())
                        } else {
                            add(bytes, to: &block, &payload, compress: false)
                        }
                    }
                    answer.blocks.append(block)
                    offset += UInt64(length)
                }
            }
            state.downloadedBytes += payload.count
            if state.corrupts, !payload.isEmpty { payload[payload.count / 2] ^= 1 }
            return (answer, payload)
        }
    }

    private func add(_ bytes: [UInt8], to block: inout Wire.DownloadedBlock, _ payload: inout [UInt8], compress: Bool) {
        block.checksum = bytes.withUnsafeBytes { Checksum(.crc32c, of: $0) }.wire
        var packed = [UInt8](repeating: 0, count: bytes.count)
        let count = bytes.withUnsafeBytes { from in packed.withUnsafeMutableBytes { LZ4.compress(from, into: $0) } }
        if compress, let count {
            block.codec = .lz4
            block.content = .payloadLength(UInt32(count))
            payload += packed[0..<count]
        } else {
            block.codec = .plain
            block.content = .payloadLength(UInt32(bytes.count))
            payload += bytes
        }
    }

    /// The volume's content.
    var content: [UInt8] {
        state.withLock { state in
            var bytes = [UInt8](repeating: 0, count: Int(state.size))
            for (chunk, value) in state.chunks {
                let start = Int(chunkSize.offset(of: ChunkIndex(chunk)))
                switch value {
                case .zeros: break
                case .patched(let data): bytes.replaceSubrange(start..<start + data.count, with: data)
                case .data(let fingerprint):
                    let data = state.store[fingerprint]!.prefix(length(of: chunk, state.size))
                    bytes.replaceSubrange(start..<start + data.count, with: data)
                }
            }
            return bytes
        }
    }

    /// Puts a chunk in place without an upload.
    func place(_ bytes: [UInt8], at chunk: UInt64, patched: Bool = false) {
        let fingerprint = bytes.withUnsafeBytes { SHA256.hash($0, padding: chunkSize.bytes - bytes.count) }
        state.withLock { state in
            state.store[fingerprint] = bytes
            state.chunks[chunk] = patched ? .patched(bytes) : .data(fingerprint)
        }
    }
}
