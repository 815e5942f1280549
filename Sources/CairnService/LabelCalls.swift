import CairnCore
import CairnStore
import CairnWire

/// UpdateTags and AttachVolume (SPEC R1, R5).
extension Service {
    /// R1: of a volume or a snapshot, whatever the snapshot's state is.
    public func updateTags(
        _ request: Wire.UpdateTagsRequest,
        _ context: CallContext,
        answer: @escaping Answer<Wire.UpdateTagsResponse>
    ) {
        do throws(ServiceError) {
            let named = try Named(request.target)
            let update = try TagUpdate(request)
            change(on: try shard(of: named), Footprint(), context, answer) { (transaction) throws(ServiceError) in
                let tags: [String: String]
                switch named {
                case .volume(let id):
                    let volume = try self.volume(id, in: transaction, context)
                    tags = try update.applied(to: volume.tags)
                    transaction.setTags(tags, of: volume)
                case .snapshot(let id):
                    let snapshot = try self.snapshot(id, in: transaction, context)
                    tags = try update.applied(to: snapshot.tags)
                    try storeCall { () throws(StoreError) in try transaction.setTags(tags, of: id) }
                }
                return Wire.UpdateTagsResponse(tags: TagRules.wire(tags))
            }
        } catch { answer(.failure(error)) }
    }

    /// R5: each call fences out those who attached the volume before.
    public func attachVolume(
        _ request: Wire.AttachVolumeRequest,
        _ context: CallContext,
        answer: @escaping Answer<Wire.AttachVolumeResponse>
    ) {
        guard let id = VolumeID(bytes: request.volumeID), let shard = shard(of: id.uuid) else {
            return answer(.failure(.noSuchVolume))
        }
        change(on: shard, Footprint(), context, answer) { (transaction) throws(ServiceError) in
            let volume = try self.volume(id, in: transaction, context)
            try Self.checkRemote(volume)
            return Wire.AttachVolumeResponse(generation: transaction.attach(volume))
        }
    }

    /// SPEC R5. A write that carries no attachment (0) is not fenced: it never claimed to be the only one.
    /// - Throws: STALE_ATTACHMENT, INVALID_ARGUMENT for a generation that nobody was given.
    static func check(attachment: UInt64, against present: UInt64) throws(ServiceError) {
        guard attachment != 0, attachment != present else { return }
        if attachment > present {
            throw ServiceError(
                .invalidArgument,
                "attachment \(attachment) was never given: the volume's is \(present)"
            )
        }
        throw ServiceError(
            .staleAttachment,
            "the volume was attached again: its attachment is \(present), not \(attachment)"
        )
    }
}

/// What UpdateTags changes.
private struct TagUpdate: Sendable {
    let set: [String: String]
    let remove: [String]

    /// - Throws: INVALID_ARGUMENT.
    init(_ request: Wire.UpdateTagsRequest) throws(ServiceError) {
        set = try TagRules.check(request.set)
        remove = request.remove
        guard remove.count <= Limits.tags else {
            throw ServiceError(.invalidArgument, "\(remove.count) keys to remove; at most \(Limits.tags) are kept")
        }
        if let both = remove.first(where: { set[$0] != nil }) {
            throw ServiceError(.invalidArgument, "tag `\(both.prefix(32))` is to be set and removed")
        }
    }

    /// Keys to remove that are not there are ignored.
    /// - Throws: INVALID_ARGUMENT where there would be too many.
    func applied(to tags: [String: String]) throws(ServiceError) -> [String: String] {
        var tags = tags
        for key in remove { tags[key] = nil }
        tags.merge(set) { _, new in new }
        guard tags.count <= Limits.tags else {
            throw ServiceError(.invalidArgument, "that would be \(tags.count) tags; at most \(Limits.tags) are kept")
        }
        return tags
    }
}
