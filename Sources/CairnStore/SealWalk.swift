import CairnCore
import CairnCrypto

/// Computes a snapshot's seal from its manifest (SPEC S6), a step at a time: from the nodes of earlier seals, and a walk through what was
/// written since. Its own nodes are for later ones.
struct SealWalk {
    struct Sealed: Sendable {
        let seal: Fingerprint
        /// How much of it is whose (SPEC V8), by name.
        let owners: [OwnerBytes]
    }

    unowned let shard: Shard
    let snapshot: SnapshotRecord
    private let source: SealSource?
    /// What there was of the lineage's nodes when it began.
    let earlierBase: SealBase?
    /// Groups of ``SealSource/groupChunks`` that the snapshot has in full.
    private let groups: UInt64
    private var seal: SealBuilder
    private var owners: [AccountID: UInt64] = [:]
    /// The chunks before it were looked for.
    private var position: UInt64 = 0
    /// Of the group that is being walked through: its first chunks, and whose they are.
    private var leaves: [Fingerprint] = []
    private var shares: [AccountID: UInt64] = [:]
    /// Nodes that were made, and are to be kept.
    private(set) var nodes: [(group: UInt64, node: SealNode)] = []
    /// Whether nodes are kept: not where those of a later version are.
    private var keepsNodes: Bool

    /// Entries that one step looks at; a node of an earlier seal counts as a few.
    private static let step = 4096
    private static let nodesPerEntry = 4
    /// Bytes of chunks that one step reads and hashes, where there are unmerged ones.
    private static let stepBytes = 16 << 20
    /// So many nodes are put into the index at a time.
    static let nodesPerChange = 256

    init(shard: Shard, snapshot: SnapshotRecord) throws(StoreError) {
        let view = shard.makeView()
        (self.shard, self.snapshot) = (shard, snapshot)
        source = try view.sealSource(for: snapshot)
        let base = try view.sealBase(snapshot.lineage)
        earlierBase = base
        groups = SealSource.groups(size: snapshot.size, snapshot.chunkSize)
        keepsNodes = groups > 0 && base.map { $0.version < snapshot.version } ?? true
        seal = SealBuilder(size: snapshot.size, chunkSize: snapshot.chunkSize)
    }

    /// What ``nodes`` say is in the index; or cannot be.
    mutating func keptNodes(_ isKept: Bool) {
        nodes = []
        if !isKept { keepsNodes = false }
    }

    /// Once it is done and its nodes are kept: what there is of nodes then.
    var base: SealBase? {
        guard keepsNodes else { return nil }
        // Of groups that the volume has got since, nothing is known of what earlier versions held.
        let first = earlierBase.map { $0.groups < groups ? snapshot.version : $0.first } ?? snapshot.version
        return SealBase(first: first, version: snapshot.version, groups: groups)
    }

    /// Nil until it is done.
    mutating func step() throws(StoreError) -> Sealed? {
        let end = seal.leafCount
        // A view for each step: one that lasts long keeps RocksDB from dropping what was overwritten.
        let view = shard.makeView()
        var changed = WrittenSince(view)
        if let changes = source?.changes { changed.add(snapshot.lineage, changes) }
        var (room, bytes) = (Self.step * Self.nodesPerEntry, Self.stepBytes)
        while position < end {
            guard room > 0, bytes > 0, nodes.count < Self.nodesPerChange else { return nil }
            let group = position / SealSource.groupChunks
            guard let source, group < source.groups else {
                try walk(view, to: end, &room, &bytes)
                continue
            }
            if leaves.isEmpty, position == added {
                try takeNodes(view, source, from: group, &changed, &room)
                // Nothing to be taken: the group was written to.
                guard position / SealSource.groupChunks == group else { continue }
            }
            try walk(view, to: (group + 1) * SealSource.groupChunks, &room, &bytes)
        }
        return Sealed(seal: seal.finish(), owners: Self.listed(owners))
    }

    /// Leaves that are in the seal, or gathered for it.
    private var added: UInt64 { seal.leaves + UInt64(leaves.count) }

    /// Adds the nodes of the groups from `group` on up to the first that was written to since.
    private mutating func takeNodes(
        _ view: ReadView,
        _ source: SealSource,
        from group: UInt64,
        _ changed: inout WrittenSince,
        _ room: inout Int
    ) throws(StoreError) {
        var end = source.groups
        if source.changes != nil, let chunk = try changed.next(from: ChunkIndex(position)) {
            end = min(end, chunk.rawValue / SealSource.groupChunks)
        }
        guard end > group else { return }
        var next = group
        var found: [(UInt64, SealNode)] = []
        try view.sealNodes(of: source.lineage, in: group..<end) { (group, node) throws(StoreError) in
            // A later version's: what it was before is not known.
            guard node.version <= source.version, room > 0 else {
                end = group
                return false
            }
            found.append((group, node))
            room -= 1
            return true
        }
        for (group, node) in found {
            seal.add(zeros: (group - next) * SealSource.groupChunks)
            seal.add(node: node.node)
            for share in node.owners { owners[share.owner, default: 0] += share.bytes }
            // Those of the lineage that this one stands on become its own.
            if source.lineage != snapshot.lineage {
                keep(SealNode(version: snapshot.version, node: node.node, owners: node.owners), group)
            }
            next = group + 1
        }
        // Groups without a node are zeros.
        seal.add(zeros: (end - next) * SealSource.groupChunks)
        position = end * SealSource.groupChunks
    }

    /// Adds chunks up to `end`, as many as there is room for.
    private mutating func walk(_ view: ReadView, to end: UInt64, _ room: inout Int, _ bytes: inout Int)
        throws(StoreError)
    {
        let (entries, next) = try view.blocks(
            of: snapshot.lineage,
            at: snapshot.version,
            in: ChunkIndex(position)..<ChunkIndex(end),
            limit: max(1, room / Self.nodesPerEntry)
        )
        // At least one: a group is walked through, however little room there is.
        room -= max(1, entries.count) * Self.nodesPerEntry
        for entry in entries {
            if bytes <= 0 || nodes.count >= Self.nodesPerChange { return }
            try addZeros(to: entry.chunk.rawValue, view)
            if case .data = entry.state, let owner = entry.owner {
                let start = snapshot.chunkSize.offset(of: entry.chunk)
                let length = min(UInt64(snapshot.chunkSize.bytes), snapshot.size - start)
                shares[owner, default: 0] += length
                // A chunk is each one's whose data is in it: all of them must allow an export. The account itself always does.
                for other in entry.others where other != snapshot.account { shares[other, default: 0] += length }
            }
            switch entry.state {
            case .data(let fingerprint?): add(fingerprint)
            case .data(nil):
                add(try shard.fingerprint(of: entry.chunk, in: snapshot))
                bytes -= snapshot.chunkSize.bytes
            case .zeros, .hole: add(ZeroChunk.fingerprint(snapshot.chunkSize))
            }
            position = entry.chunk.rawValue + 1
        }
        if let next {
            position = next.rawValue
        } else {
            try addZeros(to: end, view)
            position = end
        }
    }

    /// The next chunk: gathered until its group is whole; what is behind the last whole group has no node.
    private mutating func add(_ leaf: Fingerprint) {
        guard added / SealSource.groupChunks < groups else {
            seal.add(leaf)
            return countShares()
        }
        leaves.append(leaf)
        guard leaves.count == SealBuilder.fanOut else { return }
        let group = seal.leaves / SealSource.groupChunks
        let node = SealBuilder.node(over: leaves)
        seal.add(node: node)
        keep(SealNode(version: snapshot.version, node: node, owners: Self.listed(shares)), group)
        leaves.removeAll(keepingCapacity: true)
        countShares()
    }

    /// By name.
    private static func listed(_ owners: [AccountID: UInt64]) -> [OwnerBytes] {
        owners.map { OwnerBytes(owner: $0.key, bytes: $0.value) }.sorted { $0.owner.name < $1.owner.name }
    }

    private mutating func countShares() {
        for (owner, bytes) in shares { owners[owner, default: 0] += bytes }
        shares = [:]
    }

    private mutating func keep(_ node: SealNode, _ group: UInt64) { if keepsNodes { nodes.append((group, node)) } }

    /// Adds zeros up to a chunk.
    private mutating func addZeros(to chunk: UInt64, _ view: ReadView) throws(StoreError) {
        let zero = ZeroChunk.fingerprint(snapshot.chunkSize)
        while added < chunk {
            let isWithin = added / SealSource.groupChunks < groups
            guard isWithin else {
                seal.add(zeros: chunk - added)
                return
            }
            // Groups of nothing but zeros have no nodes; where one had something once, it has one now.
            let group = added / SealSource.groupChunks
            let end = min(chunk / SealSource.groupChunks, groups)
            if leaves.isEmpty, end > group, group >= source?.groups ?? 0 {
                try forgetNodes(group..<end, view)
                seal.add(zeros: (end - group) * SealSource.groupChunks)
            } else {
                add(zero)
            }
        }
    }

    /// Of seals that were not finished, or of a smaller volume.
    private mutating func forgetNodes(_ groups: Range<UInt64>, _ view: ReadView) throws(StoreError) {
        guard keepsNodes else { return }
        var stale: [UInt64] = []
        try view.sealNodes(of: snapshot.lineage, in: groups) { (group, _) throws(StoreError) in
            stale.append(group)
            return true
        }
        // Mostly there is none.
        if stale.isEmpty { return }
        let zero = SealBuilder.node(
            over: Array(repeating: ZeroChunk.fingerprint(snapshot.chunkSize), count: SealBuilder.fanOut)
        )
        for group in stale { keep(SealNode(version: snapshot.version, node: zero, owners: []), group) }
    }
}
