public import CairnCore
internal import CairnWire

extension Client {
    /// Makes a snapshot of a volume; of a REMOTE one it is complete when this returns (SPEC S2), of a LOCAL one in progress
    /// (SPEC S3).
    /// - Parameters:
    ///   - note: at most 1,024 bytes.
    ///   - tags: at most 64; keys 1–256 bytes, values at most 256 bytes.
    ///   - key: the same key with the same parameters gives the first answer again (SPEC C5).
    public func createSnapshot(
        of volume: VolumeID,
        note: String = "",
        tags: [String: String] = [:],
        key: IdempotencyKey = IdempotencyKey()
    ) async throws(ClientError) -> CreatedSnapshot {
        var new = NewSnapshot()
        new.note = note
        new.tags = tags
        return try await createSnapshot(of: volume, new, listTokens: [], key: key)
    }

    /// Makes snapshots of several REMOTE volumes of the account at one point in time: all of them, or none (SPEC R6).
    /// - Returns: one for each volume, in their order.
    public func createSnapshots(
        of volumes: [VolumeID],
        note: String = "",
        tags: [String: String] = [:],
        key: IdempotencyKey = IdempotencyKey()
    ) async throws(ClientError) -> [CreatedSnapshot] {
        let request = Wire.CreateSnapshotsRequest(
            volumeIDs: volumes.map(\.bytes),
            description: note,
            tags: Tags.wire(tags),
            idempotencyKey: key.bytes
        )
        let answer = try await caller.call(request).0
        guard answer.snapshots.count == volumes.count else {
            throw ClientError(
                .protocolViolation,
                "CreateSnapshots answered \(answer.snapshots.count) snapshots for \(volumes.count) volumes"
            )
        }
        var made: [CreatedSnapshot] = []
        for snapshot in answer.snapshots { made.append(try CreatedSnapshot(snapshot)) }
        return made
    }

    /// Deletes a snapshot, in progress or complete (SPEC S8).
    /// - Parameter key: the same key gives the first answer again (SPEC C5).
    public func deleteSnapshot(
        _ id: SnapshotID,
        key: IdempotencyKey = IdempotencyKey()
    ) async throws(ClientError) {
        _ = try await caller.call(Wire.DeleteSnapshotRequest(snapshotID: id.bytes, idempotencyKey: key.bytes))
    }

    /// A snapshot as it is now.
    /// - Throws: INVALID_SNAPSHOT_ID where there is none that the caller may see (SPEC C2); so do all calls that name one.
    public func describeSnapshot(_ id: SnapshotID) async throws(ClientError) -> Snapshot {
        try await describe(.snapshotID(id.bytes))
    }

    /// Describes the snapshot that a token names (SPEC S7).
    public func describeSnapshot(token: [UInt8]) async throws(ClientError) -> Snapshot {
        try await describe(.snapshotToken(token))
    }

    private func describe(_ target: Wire.DescribeSnapshotRequest.Target) async throws(ClientError) -> Snapshot {
        let answer = try await caller.call(Wire.DescribeSnapshotRequest(target: target)).0
        return try Snapshot(try Contract.require(answer.snapshot, "snapshot", in: "the answer to DescribeSnapshot"))
    }

    /// The snapshot's seal, asked for until the server has computed it (SPEC S6).
    /// - Parameter limit: how long to wait.
    /// - Throws: as ``describeSealed(_:within:)``; `invalidRequest` where there will be none, or none is told.
    public func seal(of id: SnapshotID, within limit: Duration = .seconds(60)) async throws(ClientError) -> Fingerprint
    {
        let snapshot = try await describeSealed(id, within: limit)
        if case .value(let seal) = snapshot.seal { return seal }
        let reason =
            snapshot.isSealWithheld ? "withheld: it holds data of other accounts" : "never made: it was cancelled"
        throw ClientError(.invalidRequest, "the seal of \(id) is \(reason)")
    }

    /// A snapshot, asked for until it is complete and the server has computed its seal, which is told, or withheld: it holds data of accounts
    /// that do not grant EXPORT (SPEC S6, D5). One that was cancelled at once.
    /// - Parameter limit: how long to wait.
    /// - Throws: `timedOut` when it is still in progress then, or its seal pending.
    public func describeSealed(_ id: SnapshotID, within limit: Duration = .seconds(60)) async throws(ClientError)
        -> Snapshot
    {
        let clock = ContinuousClock()
        let end = clock.now + limit
        var wait = Duration.milliseconds(50)
        while true {
            let snapshot = try await describeSnapshot(id)
            if snapshot.state == .error || snapshot.state == .complete && snapshot.seal != .pending { return snapshot }
            guard clock.now + wait < end else { throw ClientError(.timedOut, "the seal of \(id) is still pending") }
            do { try await Task.sleep(for: wait) } catch { throw .cancelled }
            wait = min(wait * 2, .seconds(1))
        }
    }

    /// The account's snapshots, oldest first.
    /// - Parameters:
    ///   - volume: only snapshots of this volume; nil: of any.
    ///   - tags: only snapshots that have all of these.
    ///   - state: only snapshots in this state; nil: any.
    public func snapshots(
        of volume: VolumeID? = nil,
        tags: [String: String] = [:],
        state: SnapshotState? = nil
    ) -> Pages<Snapshot> {
        Pages { [self] (page: [UInt8]) async throws(ClientError) in
            let request = Wire.ListSnapshotsRequest(
                page: Wire.PageRequest(limit: UInt32(Limits.pageItems), pageToken: page),
                volumeID: volume?.bytes ?? [],
                tags: Tags.wire(tags),
                state: state?.wire ?? .unspecified
            )
            let answer = try await caller.call(request).0
            var items: [Snapshot] = []
            for snapshot in answer.snapshots { items.append(try Snapshot(snapshot)) }
            return (items, answer.nextPageToken)
        }
    }
}

// MARK: - In progress

extension Client {
    /// Reports how far the upload of a snapshot is; 100 completes it. Repeating 100 gives the seal again (SPEC S9).
    /// - Parameters:
    ///   - percent: 0–100, not below what was reported before.
    ///   - rebased: declares that all that changed since the last complete snapshot is in (SPEC S4).
    /// - Throws: INVALID_PROGRESS, NEEDS_REBASE; INVALID_SNAPSHOT_ID where an earlier snapshot of the volume is still in
    ///   progress; FAILED_PRECONDITION at 100 while expected chunks are missing.
    @discardableResult
    public func reportProgress(
        _ percent: Int,
        of id: SnapshotID,
        rebased: Bool = false
    ) async throws(ClientError) -> SnapshotProgressResult {
        try await report(percent, .snapshotID(id.bytes), rebased)
    }

    /// The same, of the snapshot that a token names (SPEC S7).
    @discardableResult
    public func reportProgress(
        _ percent: Int,
        ofToken token: [UInt8],
        rebased: Bool = false
    ) async throws(ClientError) -> SnapshotProgressResult {
        try await report(percent, .snapshotToken(token), rebased)
    }

    private func report(
        _ percent: Int,
        _ target: Wire.SnapshotProgressRequest.Target,
        _ rebased: Bool
    ) async throws(ClientError) -> SnapshotProgressResult {
        guard let percent = UInt32(exactly: percent) else {
            throw ClientError(.invalidRequest, "a progress of \(percent) percent")
        }
        let request = Wire.SnapshotProgressRequest(target: target, percent: percent, rebased: rebased)
        return try SnapshotProgressResult(try await caller.call(request).0)
    }

    /// The expected chunks of a snapshot in progress that have not come yet, by rising offset (SPEC R1, S5).
    public func missingBlocks(of id: SnapshotID) -> Pages<ChunkPlacement> { missing(.snapshotID(id.bytes)) }

    /// The same, of the snapshot that a token names (SPEC S7).
    public func missingBlocks(ofToken token: [UInt8]) -> Pages<ChunkPlacement> { missing(.snapshotToken(token)) }

    private func missing(_ target: Wire.MissingBlocksRequest.Target) -> Pages<ChunkPlacement> {
        Pages { [self] (page: [UInt8]) async throws(ClientError) in
            let request = Wire.MissingBlocksRequest(
                target: target,
                page: Wire.PageRequest(limit: UInt32(Limits.pageItems), pageToken: page)
            )
            let answer = try await caller.call(request).0
            var items: [ChunkPlacement] = []
            for chunk in answer.missing {
                items.append(try ChunkPlacement(chunk, in: "the answer to MissingBlocks"))
            }
            return (items, answer.nextPageToken)
        }
    }
}
