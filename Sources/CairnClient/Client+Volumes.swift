public import CairnCore
internal import CairnWire

extension Client {
    /// Makes a volume (SPEC V1).
    /// - Parameter key: the same key with the same parameters gives the first answer again (SPEC C5).
    public func createVolume(
        _ new: NewVolume,
        key: IdempotencyKey = IdempotencyKey()
    ) async throws(ClientError) -> CreatedVolume {
        let request = Wire.CreateVolumeRequest(
            size: new.size ?? 0,
            snapshotID: new.snapshot?.bytes ?? [],
            chunkSize: UInt32(new.chunkSize?.bytes ?? 0),
            kind: new.kind.wire,
            affinity: new.affinity,
            tags: Tags.wire(new.tags),
            idempotencyKey: key.bytes
        )
        return try CreatedVolume(try await caller.call(request).0)
    }

    /// Deletes a volume; its complete snapshots stay (SPEC V9).
    /// - Parameters:
    ///   - cancellingSnapshots: whether its snapshots in progress are cancelled; otherwise they refuse the call.
    ///   - key: the same key with the same parameters gives the first answer again (SPEC C5).
    public func deleteVolume(
        _ id: VolumeID,
        cancellingSnapshots: Bool = false,
        key: IdempotencyKey = IdempotencyKey()
    ) async throws(ClientError) {
        _ = try await caller.call(
            Wire.DeleteVolumeRequest(
                volumeID: id.bytes,
                cancelSnapshots: cancellingSnapshots,
                idempotencyKey: key.bytes
            )
        )
    }

    /// A volume as it is now.
    /// - Throws: INVALID_VOLUME_ID where there is none that the caller may see (SPEC C2); so do all calls that name a volume.
    public nonisolated(nonsending) func describeVolume(_ id: VolumeID) async throws(ClientError) -> Volume {
        let answer = try await caller.call(Wire.DescribeVolumeRequest(volumeID: id.bytes)).0
        return try Volume(try Contract.require(answer.volume, "volume", in: "the answer to DescribeVolume"))
    }

    /// Whether nothing can show through in a volume any more from an incomplete snapshot that it was made of, directly or through
    /// other clones (SPEC V5): then what is listed of it stays until somebody writes to it. Once true it stays true.
    ///
    /// The volume's own initial snapshot tells, whose chain is the volume's: it is in progress as long as anything can show
    /// through. Where it was deleted any other complete snapshot of the volume says the same; without one the answer is no,
    /// which costs more but is never wrong.
    func isSettled(_ volume: Volume) async throws(ClientError) -> Bool {
        guard volume.sourceSnapshot != nil else { return true }
        if let initial = volume.initialSnapshot {
            do throws(ClientError) {
                return try await describeSnapshot(initial).state == .complete
            } catch {
                guard error.answer?.reason == .invalidSnapshotID else { throw error }
            }
        }
        var complete = snapshots(of: volume.id, state: .complete).makeAsyncIterator()
        return try await complete.next(isolation: nil) != nil
    }

    /// Takes the volume over: writes that carry the attachment that this gives are accepted, those that carry an older one
    /// are refused with STALE_ATTACHMENT from now on (SPEC R5).
    public func attachVolume(_ id: VolumeID) async throws(ClientError) -> Attachment {
        Attachment(generation: try await caller.call(Wire.AttachVolumeRequest(volumeID: id.bytes)).0.generation)
    }

    /// Sets and removes labels of a volume or snapshot (SPEC R1).
    /// - Parameters:
    ///   - set: at most 64 in all; keys 1–256 bytes, values at most 256 bytes.
    ///   - remove: keys; those that are not there do not matter.
    /// - Returns: all labels as they are now.
    public func updateTags(
        of target: BlockTarget,
        set: [String: String] = [:],
        remove: [String] = []
    ) async throws(ClientError) -> [String: String] {
        let request = Wire.UpdateTagsRequest(target: target.wire, set: Tags.wire(set), remove: remove.sorted())
        return Tags.value(try await caller.call(request).0.tags)
    }

    /// The account's volumes, oldest first.
    /// - Parameters:
    ///   - tags: only volumes that have all of these.
    ///   - state: only volumes in this state; nil: any.
    public func volumes(tags: [String: String] = [:], state: VolumeState? = nil) -> Pages<Volume> {
        Pages { [self] (page: [UInt8]) async throws(ClientError) in
            let request = Wire.ListVolumesRequest(
                page: Wire.PageRequest(limit: UInt32(Limits.pageItems), pageToken: page),
                tags: Tags.wire(tags),
                state: state?.wire ?? .unspecified
            )
            let answer = try await caller.call(request).0
            var items: [Volume] = []
            for volume in answer.volumes { items.append(try Volume(volume)) }
            return (items, answer.nextPageToken)
        }
    }

    /// Grows a volume.
    /// - Parameter size: bytes, a multiple of 512, not below the present size.
    /// - Returns: the volume's size now.
    public func resizeVolume(_ id: VolumeID, to size: UInt64) async throws(ClientError) -> UInt64 {
        try await caller.call(Wire.ResizeVolumeRequest(volumeID: id.bytes, size: size)).0.size
    }
}
