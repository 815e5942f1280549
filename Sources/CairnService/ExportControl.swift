import CairnCore
import CairnStore
import CairnWire

/// What a call reads: a volume or snapshot that the caller may see, and which of its data it may have (SPEC D5).
struct Readable {
    let shard: Shard
    let source: ReadSource
    /// For people.
    let name: String
    let rule: ExportRule
    /// Whether it is the caller's own: then it is told whose permission is missing.
    let isOwn: Bool
    /// What the caller is told where it is not (SPEC C2).
    let absence: ServiceError

    /// The refusal, as this caller gets it.
    func refusal(_ error: StoreError) -> ServiceError {
        let failure = ServiceError(error)
        if error.code == .forbidden, !isOwn { return absence }
        // SPEC D4: the volume beside the offset and the fingerprint.
        return ServiceError(failure.code, "\(name): \(failure.text)")
    }
}

/// Who may have what: the one place where grants are asked (SPEC D5).
extension Service {
    /// Levels of other accounts whose permission is asked for where the call must not wait: each takes as long as a small read.
    private static let levelsInMemory = 8

    /// What a resource's permission must be for.
    enum Purpose {
        /// To make volumes from it, or to know of it: USE or EXPORT.
        case use
        /// To have its data.
        case export
    }

    /// Whether an account permitted the caller something for a snapshot, its volume, or all that is its own. Always the same
    /// lookups, whatever the answer is (SPEC C2).
    private func isPermitted(
        _ purpose: Purpose,
        by grantor: AccountID,
        snapshot: SnapshotID?,
        volume: VolumeID,
        in view: ManifestReader,
        _ context: CallContext
    ) throws(ServiceError) -> Bool {
        // Where the call must not wait, neither must this.
        let home = homeShard(of: grantor).makeView(inMemory: view.isInMemory)
        var resources: [GrantResource] = [.account, .volume(volume)]
        if let snapshot { resources.append(.snapshot(snapshot)) }
        var isPermitted = false
        for resource in resources {
            for permission in [GrantPermission.export, .use] {
                let isGiven = try storeCall { () throws(StoreError) in
                    try home.isGiven(permission, by: grantor, to: context.account, for: resource)
                }
                if isGiven, permission == .export || purpose == .use { isPermitted = true }
            }
        }
        view.addLookups(of: home)
        return isPermitted
    }

    /// A snapshot that is the caller's, or that its owner shares for the purpose. C2's answer for any other, after the same lookups.
    func snapshot(_ id: SnapshotID, for purpose: Purpose, in view: ManifestReader, _ context: CallContext)
        throws(ServiceError) -> SnapshotRecord
    {
        let record = try storeCall { () throws(StoreError) in try view.snapshot(id) }
        if let record, record.account == context.account { return try snapshot(id, in: view, context) }
        let isPermitted = try isPermitted(
            purpose,
            by: record?.account ?? context.account,
            snapshot: id,
            volume: record?.volume ?? VolumeID(id.uuid),
            in: view,
            context
        )
        guard let record, isPermitted, record.state != .creating else {
            throw ServiceError.noSuchSnapshot
        }
        return try storeCall { () throws(StoreError) in try view.settled(record) }
    }

    /// A volume that is the caller's, or that its owner shares for the purpose.
    func volume(_ id: VolumeID, for purpose: Purpose, in view: ManifestReader, _ context: CallContext)
        throws(ServiceError) -> VolumeRecord
    {
        let record = try storeCall { () throws(StoreError) in try view.volume(id, for: context.account) }
        if let record, record.account == context.account {
            guard record.state == .active else { throw ServiceError.noSuchVolume }
            return record
        }
        let isPermitted = try isPermitted(
            purpose,
            by: record?.account ?? context.account,
            snapshot: nil,
            volume: id,
            in: view,
            context
        )
        guard let record, isPermitted, record.state == .active else { throw ServiceError.noSuchVolume }
        return record
    }

    /// Which data the caller may have of what a source is made of.
    /// - Throws: `.notInMemory` for a view that is to read in memory alone, where there is more to ask than is done there.
    func exportRule(
        of source: ReadSource,
        snapshot: SnapshotID?,
        volume: VolumeID,
        for purpose: Purpose = .export,
        in view: ManifestReader,
        _ context: CallContext
    ) throws(ServiceError) -> ExportRule {
        let levels = try storeCall { () throws(StoreError) in
            try view.levels(of: source, snapshot: snapshot, volume: volume)
        }
        if view.isInMemory, levels.count(where: { $0.account != context.account }) > Self.levelsInMemory {
            throw ServiceError(.notInMemory, "many accounts' permissions are to be looked up")
        }
        var isGranted: [Bool] = []
        for level in levels {
            if level.account == context.account {
                isGranted.append(true)
            } else {
                isGranted.append(
                    try isPermitted(
                        purpose,
                        by: level.account,
                        snapshot: level.snapshot,
                        volume: level.volume,
                        in: view,
                        context
                    )
                )
            }
        }
        return ExportRule(levels, isGranted: isGranted)
    }

    /// Reads what a call names, and looks afterwards whether it is still what was read: the data of what is deleted meanwhile goes in
    /// the background, and must be told neither as holes nor as damage (SPEC D4). A volume that got a snapshot is read again.
    func reading<Value>(
        _ named: Named,
        _ context: CallContext,
        _ body: (Readable) throws(ServiceError) -> Value
    ) throws(ServiceError) -> Value {
        for _ in 0..<Self.readings {
            let target = try readable(named, version: 0, context)
            let result = Result { () throws(ServiceError) in try body(target) }
            // Otherwise the next round tells why it cannot be read any more, or reads what it is now.
            if try isStill(target, named: named) { return try result.get() }
        }
        throw Self.unsteady
    }

    /// Whether what was read is still what the call names.
    func isStill(_ target: Readable, named: Named, inMemory: Bool = false) throws(ServiceError) -> Bool {
        try source(of: named, on: target.shard, inMemory: inMemory) == target.source
    }

    /// What is read of a volume or snapshot, by one look-up; nil where there is nothing to be read.
    private func source(of named: Named, on shard: Shard, inMemory: Bool) throws(ServiceError) -> ReadSource? {
        try storeCall { () throws(StoreError) in
            let view = inMemory ? shard.makePeek() : shard.makeView()
            switch named {
            case .volume(let id): return try view.volume(id).map { ReadSource($0) }
            case .snapshot(let id):
                guard let snapshot = try view.snapshot(id), snapshot.state != .error else { return nil }
                return ReadSource(snapshot)
            }
        }
    }

    /// How often something is read that changes meanwhile.
    static let readings = 8
    static let unsteady = ServiceError(.unavailable, "it changes while it is read", retryAfter: .milliseconds(50))

    func exportRule(of snapshot: SnapshotRecord, in view: ManifestReader, _ context: CallContext) throws(ServiceError)
        -> ExportRule
    {
        try exportRule(of: ReadSource(snapshot), snapshot: snapshot.id, volume: snapshot.volume, in: view, context)
    }

    /// The volume or snapshot that a call reads.
    /// - Parameters:
    ///   - version: 0, or the version that it must have.
    ///   - purpose: what the caller must be permitted where it is not its own: `.use` for a compute host that only reads.
    ///   - inMemory: never waits for the disk.
    /// - Throws: C2's errors, WRONG_VOLUME_KIND, INVALID_DATA_VERSION, FAILED_PRECONDITION.
    func readable(
        _ named: Named,
        version: UInt64,
        for purpose: Purpose = .export,
        inMemory: Bool = false,
        _ context: CallContext
    ) throws(ServiceError) -> Readable {
        let shard = try shard(of: named)
        let view = shard.makeView(inMemory: inMemory)
        let (source, name, account, present): (ReadSource, String, AccountID, DataVersion)
        let (snapshotID, volumeID): (SnapshotID?, VolumeID)
        let absence: ServiceError
        switch named {
        case .volume(let id):
            let volume = try volume(id, for: purpose, in: view, context)
            try Self.checkRemote(volume)
            (source, name, account, present) = (ReadSource(volume), "\(id)", volume.account, volume.dataVersion)
            (snapshotID, volumeID, absence) = (nil, id, .noSuchVolume)
        case .snapshot(let id):
            let snapshot = try snapshot(id, for: purpose, in: view, context)
            if snapshot.state == .error { throw Self.cancelled(snapshot) }
            name = "\(snapshot.volume) (\(id))"
            (source, account, present) = (ReadSource(snapshot), snapshot.account, snapshot.version)
            (snapshotID, volumeID, absence) = (id, snapshot.volume, .noSuchSnapshot)
        }
        guard version == 0 || version == present.rawValue else {
            throw ServiceError(.invalidDataVersion, "the data version of \(name) is \(present), not \(version)")
        }
        let rule = try exportRule(
            of: source,
            snapshot: snapshotID,
            volume: volumeID,
            for: purpose,
            in: view,
            context
        )
        return Readable(
            shard: shard,
            source: source,
            name: name,
            rule: rule,
            isOwn: account == context.account,
            absence: absence
        )
    }
}
