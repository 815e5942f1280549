import CairnCore
import CairnCrypto
import CairnWire

@testable import CairnClient

/// The LOCAL volume's snapshots: in progress, one after the other (SPEC S3–S5, S9).
extension FakeServer {
    struct LocalSnapshot {
        let id: SnapshotID
        let version: UInt64
        var chunks: [UInt64: Chunk]
        var state = Wire.SnapshotState.inProgress
        var percent: UInt32 = 0
        var expected: [UInt64: Fingerprint] = [:]
        var needsRebase = false
        var rebased = false
        /// What was reported, by calls and with uploads.
        var reports: [UInt32] = []
        var isDeleted = false

        var missing: [UInt64] {
            expected.filter { chunk, token in
                if case .data(token) = chunks[chunk] { false } else { true }
            }.keys.sorted()
        }
    }

    /// A server with an empty LOCAL volume and its initial snapshot.
    static func local(size: UInt64) -> FakeServer {
        let server = FakeServer(size: size)
        server.state.withLock { state in
            state.kind = .local
            state.local = [LocalSnapshot(id: server.snapshot, version: 1, chunks: [:], state: .complete, percent: 100)]
        }
        return server
    }

    func handleSnapshotCall(_ method: Wire.Method, _ message: [UInt8]) throws -> [UInt8] {
        switch method {
        case .createSnapshot: try create(try Wire.CreateSnapshotRequest.decode(message)).encode()
        case .listSnapshots: try listSnapshots(try Wire.ListSnapshotsRequest.decode(message)).encode()
        case .snapshotProgress: try progress(try Wire.SnapshotProgressRequest.decode(message)).encode()
        case .missingBlocks: try missing(try Wire.MissingBlocksRequest.decode(message)).encode()
        case .deleteSnapshot: try delete(try Wire.DeleteSnapshotRequest.decode(message)).encode()
        default: throw CallError(.unknownMethod)
        }
    }

    private func create(_ request: Wire.CreateSnapshotRequest) throws -> Wire.CreateSnapshotResponse {
        state.withLock { state in
            var made = state.newSnapshot()
            for chunk in request.expected {
                made.expected[chunkSize.chunk(at: chunk.offset).rawValue] = Fingerprint(bytes: chunk.token)!
            }
            state.local.append(made)
            return Wire.CreateSnapshotResponse(
                snapshotID: made.id.bytes,
                dataVersion: made.version,
                snapshotToken: [1],
                state: .inProgress
            )
        }
    }

    func describeSnapshot(_ request: Wire.DescribeSnapshotRequest) throws -> Wire.SnapshotDescription {
        guard case .snapshotID(let id) = request.target else { throw CallError(.invalidSnapshotID) }
        return state.withLock { state in
            state.local.first { $0.id.bytes == id }.map { describe($0, state) } ?? describeRemoteSnapshot(state)
        }
    }

    private func describe(_ snapshot: LocalSnapshot, _ state: State) -> Wire.SnapshotDescription {
        var description = describeRemoteSnapshot(state)
        description.snapshotID = snapshot.id.bytes
        description.state = told(snapshot.state, state)
        description.dataVersion = snapshot.version
        description.progress = snapshot.percent
        description.needsRebase = snapshot.needsRebase
        description.missing = UInt64(snapshot.missing.count)
        description.seal = description.state == .complete ? told(seal(of: snapshot, state.size), state) : nil
        return description
    }

    private func told(_ seal: Fingerprint, _ state: State) -> Wire.Seal? {
        if state.isSealWithheld { return nil }
        return state.isSealPending ? Wire.Seal(pending: true) : Wire.Seal(value: seal.bytes)
    }

    /// What would be complete waits for what the volume was made of.
    private func told(_ snapshot: Wire.SnapshotState, _ state: State) -> Wire.SnapshotState {
        snapshot == .complete && state.isUnsettled ? .inProgress : snapshot
    }

    func seal(of snapshot: LocalSnapshot, _ size: UInt64) -> Fingerprint {
        var builder = SealBuilder(size: size, chunkSize: chunkSize)
        for chunk in 0..<chunkSize.count(for: size) {
            if case .data(let fingerprint) = snapshot.chunks[chunk] {
                builder.add(fingerprint)
            } else {
                builder.add(zeros: 1)
            }
        }
        return builder.finish()
    }

    private func listSnapshots(_ request: Wire.ListSnapshotsRequest) throws -> Wire.ListSnapshotsResponse {
        state.withLock { state in
            let shown = state.local.filter { snapshot in
                !snapshot.isDeleted && (request.state == .unspecified || request.state == told(snapshot.state, state))
            }
            return Wire.ListSnapshotsResponse(snapshots: shown.map { describe($0, state) })
        }
    }

    private func progress(_ request: Wire.SnapshotProgressRequest) throws -> Wire.SnapshotProgressResponse {
        guard case .snapshotID(let id) = request.target else { throw CallError(.invalidSnapshotID) }
        return try state.withLock { state in
            guard let place = state.earliest, state.local[place].id.bytes == id else {
                throw CallError(.invalidSnapshotID)
            }
            let snapshot = state.local[place]
            if request.percent == 100 {
                guard snapshot.missing.isEmpty else { throw CallError(.failedPrecondition, "missing") }
                guard !snapshot.needsRebase || request.rebased else { throw CallError(.needsRebase) }
            }
            try state.advance(place, to: request.percent)
            guard request.percent == 100 else {
                return Wire.SnapshotProgressResponse(state: .inProgress, percent: request.percent)
            }
            state.local[place].rebased = request.rebased
            state.complete(place)
            return Wire.SnapshotProgressResponse(
                state: told(.complete, state),
                percent: 100,
                seal: state.isUnsettled ? nil : told(seal(of: snapshot, state.size), state)
            )
        }
    }

    private func missing(_ request: Wire.MissingBlocksRequest) throws -> Wire.MissingBlocksResponse {
        guard case .snapshotID(let id) = request.target else { throw CallError(.invalidSnapshotID) }
        return state.withLock { state in
            let snapshot = state.local.first { $0.id.bytes == id }!
            return Wire.MissingBlocksResponse(
                missing: snapshot.missing.map {
                    Wire.ChunkPlacement(
                        offset: chunkSize.offset(of: ChunkIndex($0)),
                        token: snapshot.expected[$0]!.bytes
                    )
                }
            )
        }
    }

    private func delete(_ request: Wire.DeleteSnapshotRequest) throws -> Wire.DeleteSnapshotResponse {
        try state.withLock { state in
            guard let place = state.local.firstIndex(where: { $0.id.bytes == request.snapshotID && !$0.isDeleted })
            else { throw CallError(.invalidSnapshotID) }
            state.local[place].isDeleted = true
            guard state.local[place].state == .inProgress else { return Wire.DeleteSnapshotResponse() }
            state.local[place].state = .deleting
            for later in state.local.indices where later > place && state.local[later].state == .inProgress {
                state.local[later].needsRebase = true
            }
            return Wire.DeleteSnapshotResponse()
        }
    }

    /// The rules of an upload to a snapshot in progress.
    func checkSnapshot(_ request: Wire.UploadBlockRequest, _ state: State) throws {
        guard state.kind == .local else { return }
        guard case .snapshotID(let id) = request.target?.target else { throw CallError(.wrongVolumeKind) }
        guard !state.local.contains(where: { $0.id.bytes == id && $0.state == .complete }) else {
            throw CallError(.snapshotAlreadyComplete)
        }
        guard let place = state.earliest, state.local[place].id.bytes == id,
            request.dataVersion == 0 || request.dataVersion == state.local[place].version
        else { throw CallError(.invalidDataVersion) }
    }
}

extension FakeServer.State {
    /// The place of the earliest outstanding snapshot.
    var earliest: Int? { local.firstIndex { $0.state == .inProgress } }

    mutating func report(_ percent: UInt32, _ request: Wire.UploadBlockRequest) throws {
        let place = earliest!
        try advance(place, to: percent)
        if percent == 100 { complete(place) }
    }

    /// The volume's next snapshot: it starts from the last that is complete.
    mutating func newSnapshot() -> FakeServer.LocalSnapshot {
        lastVersion += 1
        return FakeServer.LocalSnapshot(
            id: SnapshotID(.random(shard: ShardIndex(0))),
            version: lastVersion,
            chunks: local.last { $0.state == .complete }?.chunks ?? [:]
        )
    }

    mutating func advance(_ place: Int, to percent: UInt32) throws {
        guard percent <= 100, percent >= local[place].percent else { throw CallError(.invalidProgress) }
        local[place].percent = percent
        local[place].reports.append(percent)
    }

    /// The next one stands on this one from now on.
    mutating func complete(_ place: Int) {
        local[place].state = .complete
        local[place].percent = 100
        if let next = earliest { local[next].chunks = local[place].chunks }
    }
}
