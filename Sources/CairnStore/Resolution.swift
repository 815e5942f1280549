public import CairnCore
import CairnCrypto
import CairnLog

/// What a chunk of a volume or snapshot holds.
struct ResolvedChunk: Equatable {
    enum Base: Equatable {
        /// `depth`: how many parents up it was found; 0 in the own lineage.
        case data(ChunkKey, depth: Int)
        case zeros
        /// Never written, or discarded.
        case hole
    }
    let base: Base
    /// Oldest first: later ones win.
    let patches: [Patch]
    /// The lineages that the parts are of, where there are any: their accounts' data (SPEC D5).
    var patchLayers: [Layer] = []
    /// Of data: where its record may be (``ManifestEntry/hint``).
    var hint: RecordLocation?

    struct Layer: Hashable {
        let account: AccountNumber
        let depth: Int
    }
}

/// What ListBlocks tells of a chunk.
public struct BlockEntry: Sendable, Hashable {
    public enum State: Sendable, Hashable {
        /// With the chunk's fingerprint; nil while parts of it wait to be merged, or where it is damaged (see `blocks`).
        case data(Fingerprint?)
        case zeros
        case hole
    }
    public let chunk: ChunkIndex
    public internal(set) var state: State
    /// Whose the data is (SPEC V8); nil for zeros and holes.
    public let owner: AccountID?
    /// The other accounts whose data is in it: through whose volumes it came, and who wrote over parts of it (SPEC D5).
    let others: [AccountID]

    /// - Parameter names: of the accounts that the chunk may be of.
    init(_ chunk: ChunkIndex, _ resolved: ResolvedChunk, _ names: [AccountNumber: AccountID]) {
        self.chunk = chunk
        let owner: AccountID?
        var contributors = resolved.patchLayers.map(\.account)
        switch resolved.base {
        case .data(let key, _):
            if key.account != key.owner { contributors.append(key.account) }
            state = .data(resolved.patches.isEmpty ? key.fingerprint : nil)
            owner = names[key.owner]
        case .zeros, .hole:
            if resolved.patches.isEmpty {
                state = resolved.base == .zeros ? .zeros : .hole
                owner = nil
            } else {
                state = .data(nil)
                owner = resolved.patchLayers.last.flatMap { names[$0.account] }
            }
        }
        self.owner = owner
        others = contributors.isEmpty ? [] : Set(contributors).compactMap { names[$0] }.filter { $0 != owner }
    }
}

extension ManifestReader {
    /// The chunk as version `version` of `lineage` shows it: the newest entry that is not later, over what shows through below.
    func resolve(_ lineage: LineageID, _ version: DataVersion, _ chunk: ChunkIndex) throws(StoreError) -> ResolvedChunk
    {
        var lineage = lineage
        var version = version
        var patches: [Patch] = []
        var layers: [ResolvedChunk.Layer] = []
        var depth = 0
        while true {
            let record = try self.lineage(lineage)
            var base: ResolvedChunk.Base?
            var hint: RecordLocation?
            for found in try entries(lineage, chunk, upTo: version) {
                if !found.entry.patches.isEmpty {
                    patches.insert(contentsOf: found.entry.patches, at: 0)
                    if layers.last?.depth != depth { layers.append(.init(account: record.account, depth: depth)) }
                }
                switch found.entry.base {
                case .data(let fingerprint, let owner):
                    base = .data(ChunkKey(account: record.account, owner: owner, fingerprint), depth: depth)
                    hint = found.entry.hint
                case .zeros: base = .zeros
                case .hole: base = .hole
                case .inherit: break
                }
            }
            if let base { return ResolvedChunk(base: base, patches: patches, patchLayers: layers, hint: hint) }
            guard let parent = record.parent, record.chunkSize.offset(of: chunk) < parent.size else {
                return ResolvedChunk(base: .hole, patches: patches, patchLayers: layers)
            }
            lineage = parent.lineage
            version = parent.version
            depth += 1
        }
    }

    /// The first chunk from `chunk` on that any version of the lineage, or of what shows through below, has an entry for.
    /// What it holds may still be a hole. Nil where there is none: so a walk skips what was never written.
    func nextEntry(_ lineage: LineageID, from chunk: ChunkIndex) throws(StoreError) -> ChunkIndex? {
        var nearest = Self.noChunk
        var next: LineageID? = lineage
        var level = 0
        while let lineage = next {
            nearest = min(nearest, try ownEntry(lineage, from: chunk, walking: level < Self.walkedLevels))
            level += 1
            next = try self.lineage(lineage).parent?.lineage
        }
        return nearest == Self.noChunk ? nil : nearest
    }

    /// The chunks that hold something, in order: what ListBlocks tells (SPEC R1). Chunks that are left out are holes.
    /// - Parameters:
    ///   - range: chunks to look at.
    ///   - limit: the most entries to give, and ten times as many to look at.
    ///   - rule: which data the reader may know of; nil: all.
    ///   - hidingDamage: whether chunks that are known to be damaged are told without their fingerprint, so that a client that
    ///     has them sends them again.
    /// - Returns: the entries, and where to go on; nil at the range's end.
    public func blocks(
        of lineage: LineageID,
        at version: DataVersion,
        in range: Range<ChunkIndex>,
        limit: Int,
        rule: ExportRule? = nil,
        hidingDamage: Bool = false
    ) throws(StoreError) -> (entries: [BlockEntry], next: ChunkIndex?) {
        let names = try accountNames(along: lineage)
        var found: [BlockEntry] = []
        var position = range.lowerBound
        var looked = 0
        while let chunk = try nextEntry(lineage, from: position), chunk < range.upperBound {
            guard found.count < limit, looked < limit * 10 else { return (found, chunk) }
            looked += 1
            let resolved = try resolve(lineage, version, chunk)
            try rule?.check(resolved)
            var entry = BlockEntry(chunk, resolved, names)
            if hidingDamage, mayHaveDamage, case .data(let key, _) = resolved.base,
                try damage(of: key, try self.chunk(key)) != nil
            {
                entry.state = .data(nil)
            }
            if entry.state != .hole { found.append(entry) }
            position = ChunkIndex(chunk.rawValue + 1)
        }
        return (found, nil)
    }
}
