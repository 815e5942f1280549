public import CairnCore
internal import CairnWire

extension Client {
    /// Makes a snapshot of a volume; of a REMOTE one it is complete when this returns (SPEC S2).
    /// - Parameters:
    ///   - note: at most 1,024 bytes.
    ///   - tags: at most 64; keys 1–256 bytes, values at most 256 bytes.
    public func createSnapshot(
        of volume: VolumeID,
        note: String = "",
        tags: [String: String] = [:]
    ) async throws(ClientError) -> CreatedSnapshot {
        var request = Wire.CreateSnapshotRequest()
        request.volumeID = volume.bytes
        request.description = note
        request.tags = Tags.wire(tags)
        request.idempotencyKey = Contract.newKey()
        return try CreatedSnapshot(try await caller.call(request).0)
    }

    /// Deletes a snapshot, in progress or complete (SPEC S8).
    public func deleteSnapshot(_ id: SnapshotID) async throws(ClientError) {
        _ = try await caller.call(
            Wire.DeleteSnapshotRequest(snapshotID: id.bytes, idempotencyKey: Contract.newKey())
        )
    }

    public func describeSnapshot(_ id: SnapshotID) async throws(ClientError) -> Snapshot {
        let answer = try await caller.call(Wire.DescribeSnapshotRequest(target: .snapshotID(id.bytes))).0
        return try Snapshot(try Contract.require(answer.snapshot, "snapshot", in: "the answer to DescribeSnapshot"))
    }

    /// The snapshot's seal, asked for until the server has computed it (SPEC S6).
    /// - Parameter limit: how long to wait.
    /// - Throws: `timedOut` when it is still pending then.
    public func seal(of id: SnapshotID, within limit: Duration = .seconds(60)) async throws(ClientError) -> Fingerprint
    {
        let clock = ContinuousClock()
        let end = clock.now + limit
        var wait = Duration.milliseconds(50)
        while true {
            if case .value(let seal) = try await describeSnapshot(id).seal { return seal }
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
        Pages { [caller] (page: [UInt8]) async throws(ClientError) in
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
