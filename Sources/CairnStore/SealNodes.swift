import CairnCore
import CairnCrypto

/// A node over 256 chunks of a lineage, kept from the seal that last had to compute it: later seals walk only through what was written
/// since (SPEC S6).
struct SealNode: StoredRecord, Hashable {
    /// From this version on the chunks are what the node is over, until a later one writes to them.
    let version: DataVersion
    let node: Fingerprint
    /// How much of the chunks is whose (SPEC V8), by name.
    let owners: [OwnerBytes]

    /// Later than all versions: the node is of no use, but there is something else than zeros.
    static let spoiled = DataVersion(.max)

    func write(to writer: inout ByteWriter) {
        writer.put(version.rawValue)
        writer.put(node)
        writer.put(owners)
    }

    init(version: DataVersion, node: Fingerprint, owners: [OwnerBytes]) {
        (self.version, self.node, self.owners) = (version, node, owners)
    }

    init?(_ reader: inout ByteReader) {
        guard let version = reader.take(UInt64.self), let node = reader.takeFingerprint(),
            let owners = reader.takeOwners()
        else { return nil }
        self.init(version: DataVersion(version), node: node, owners: owners)
    }
}

/// Which nodes of a lineage there are: of each group of chunks below `groups` that has ever held anything else than zeros in a version from
/// `first` on.
struct SealBase: StoredRecord, Hashable {
    let first: DataVersion
    /// What later versions wrote is not in the nodes.
    let version: DataVersion
    /// Groups that the volume then had in full.
    let groups: UInt64

    func write(to writer: inout ByteWriter) {
        writer.put(first.rawValue)
        writer.put(version.rawValue)
        writer.put(groups)
    }

    init(first: DataVersion, version: DataVersion, groups: UInt64) {
        (self.first, self.version, self.groups) = (first, version, groups)
    }

    init?(_ reader: inout ByteReader) {
        guard let first = reader.take(UInt64.self), let version = reader.take(UInt64.self),
            let groups = reader.take(UInt64.self)
        else { return nil }
        self.init(first: DataVersion(first), version: DataVersion(version), groups: groups)
    }
}

/// The nodes that the seal of a snapshot may be made of.
struct SealSource {
    /// Whose nodes: the snapshot's own lineage, or the one that it stands on.
    let lineage: LineageID
    /// Nodes of later versions are of no use.
    let version: DataVersion
    let groups: UInt64
    /// The snapshot's own lineage wrote over some of it in these versions; nil: it did not.
    let changes: ClosedRange<DataVersion>?

    /// Chunks of a group.
    static let groupChunks = UInt64(SealBuilder.fanOut)

    /// Groups that a volume of so many bytes has in full: a chunk that is shorter at its end may grow without being written.
    static func groups(size: UInt64, _ chunkSize: ChunkSize) -> UInt64 { size / UInt64(chunkSize.bytes) / groupChunks }
}

extension Transaction {
    /// The chunk has no entry any more, and none that says so: where a seal has a node over what it held once, the next one walks through
    /// the group.
    func spoilNode(_ lineage: LineageID, _ chunk: ChunkIndex) throws(StoreError) {
        let key = Key.sealNode(lineage, chunk.rawValue / SealSource.groupChunks)
        guard let value = try overlay.get(key) else { return }
        let node = try SealNode.decode(value)
        guard node.version != SealNode.spoiled else { return }
        overlay.put(key, SealNode(version: SealNode.spoiled, node: node.node, owners: node.owners).encoded)
    }
}

extension ManifestReader {
    func sealBase(_ lineage: LineageID) throws(StoreError) -> SealBase? {
        try index.get(Key.sealBase(lineage)).map { bytes throws(StoreError) in try SealBase.decode(bytes) }
    }

    /// Nil where all of the snapshot must be walked through.
    func sealSource(for snapshot: SnapshotRecord) throws(StoreError) -> SealSource? {
        let groups = SealSource.groups(size: snapshot.size, snapshot.chunkSize)
        if let base = try sealBase(snapshot.lineage) {
            // Seals are made in the order of the versions, but for those that could not be made at first.
            guard base.first <= snapshot.version else { return nil }
            let isLater = base.version < snapshot.version
            return SealSource(
                lineage: snapshot.lineage,
                version: snapshot.version,
                groups: min(groups, base.groups),
                changes: isLater ? base.version.next...snapshot.version : nil
            )
        }
        // The first seal of a clone: what its source shows shows through. Of a cancelled version the nodes tell nothing, for what it wrote is
        // shown to it alone. Nor are another account's of use: they do not say what of a chunk is that account's own, in parts.
        let own = try lineage(snapshot.lineage)
        guard let parent = own.parent, let base = try sealBase(parent.lineage), base.first <= parent.version,
            parent.version <= base.version
        else { return nil }
        let source = try lineage(parent.lineage)
        guard source.account == own.account, !source.cancelled.contains(parent.version) else { return nil }
        return SealSource(
            lineage: parent.lineage,
            version: parent.version,
            groups: min(groups, base.groups, SealSource.groups(size: parent.size, snapshot.chunkSize)),
            changes: DataVersion(0)...snapshot.version
        )
    }

    /// The nodes of a lineage's groups, in order; `body` says whether to go on.
    func sealNodes(
        of lineage: LineageID,
        in groups: Range<UInt64>,
        _ body: (UInt64, SealNode) throws(StoreError) -> Bool
    ) throws(StoreError) {
        let prefix = Key(.sealNodes).then(lineage.rawValue).bytes
        let cursor = index.makeCursor(within: prefix)
        cursor.seek(Key.sealNode(lineage, groups.lowerBound))
        while try cursor.isValid(), cursor.key.starts(with: prefix), var key = KeyReader(cursor.key, .sealNodes),
            key.take(UInt64.self) != nil, let group = key.take(UInt64.self), group < groups.upperBound
        {
            guard try body(group, try SealNode.decode(cursor.value)) else { return }
            cursor.next()
        }
    }
}
