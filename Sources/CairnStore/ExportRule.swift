public import CairnCore

/// One level of what a volume or snapshot is made of: itself, then what it was made from, and so on (SPEC D5).
public struct SourceLevel: Sendable, Hashable {
    public let account: AccountID
    /// By which snapshot of which volume it is entered; of a volume that is read itself, nil.
    public let snapshot: SnapshotID?
    public let volume: VolumeID
    let number: AccountNumber
}

extension ManifestReader {
    /// The levels of a volume or snapshot, itself first: one lookup each, no walk of a manifest.
    public func levels(of source: ReadSource, snapshot: SnapshotID?, volume: VolumeID) throws(StoreError)
        -> [SourceLevel]
    {
        var record = try lineage(source.lineage)
        var levels = [
            SourceLevel(account: record.owner, snapshot: snapshot, volume: volume, number: record.account)
        ]
        while let parent = record.parent {
            record = try lineage(parent.lineage)
            levels.append(
                SourceLevel(
                    account: record.owner,
                    snapshot: parent.snapshot,
                    volume: parent.volume,
                    number: record.account
                )
            )
        }
        return levels
    }
}

/// Which data of a volume or snapshot a caller may have (SPEC D5).
///
/// Data of another account is allowed where that account granted it for a level at or above the one where the data is: so a
/// grant for a snapshot deep down never opens what was written since. A chunk in the manifest of account X that is O's, because
/// X wrote into it, wants both.
public struct ExportRule: Sendable {
    private let levels: [SourceLevel]
    private let isGranted: [Bool]
    /// Whether everything is allowed: nothing needs to be asked chunk by chunk.
    public let isOpen: Bool

    /// What it took to find out is proportional to it.
    public var levelCount: Int { levels.count }

    /// - Parameter isGranted: of each level, whether it is the caller's own, or its account granted it to the caller.
    public init(_ levels: [SourceLevel], isGranted: [Bool]) {
        precondition(levels.count == isGranted.count)
        self.levels = levels
        self.isGranted = isGranted
        var isOpen = true
        for depth in levels.indices where !Self.allows(levels[depth].number, depth, levels, isGranted) {
            isOpen = false
        }
        self.isOpen = isOpen
    }

    private static func allows(
        _ owner: AccountNumber,
        _ depth: Int,
        _ levels: [SourceLevel],
        _ isGranted: [Bool]
    ) -> Bool {
        let nearest = levels.indices.first { $0 >= depth && levels[$0].number == owner } ?? depth
        return levels.indices.contains { $0 <= nearest && levels[$0].number == owner && isGranted[$0] }
    }

    private func allows(_ owner: AccountNumber, _ depth: Int) -> Bool {
        Self.allows(owner, depth, levels, isGranted)
    }

    /// The accounts whose permission is missing for the chunk; none where it is allowed.
    func missing(for chunk: ResolvedChunk) -> [AccountID] {
        if isOpen { return [] }
        var owners: [AccountNumber] = []
        if case .data(let key, let depth) = chunk.base {
            for number in [key.account, key.owner] where !allows(number, depth) { owners.append(number) }
        }
        for layer in chunk.patchLayers where !allows(layer.account, layer.depth) { owners.append(layer.account) }
        return names(owners)
    }

    /// Whether the caller may have all that an account owns here, wherever it is.
    public func allowsAll(of owner: AccountID) -> Bool {
        if isOpen { return true }
        let depths = levels.indices.filter { levels[$0].account == owner }
        return !depths.isEmpty && depths.allSatisfy { allows(levels[$0].number, $0) }
    }

    /// The accounts of which something is not allowed.
    public var missing: [AccountID] {
        names(levels.indices.filter { !allows(levels[$0].number, $0) }.map { levels[$0].number })
    }

    private func names(_ numbers: [AccountNumber]) -> [AccountID] {
        var names: [AccountID] = []
        for number in numbers {
            guard let name = levels.first(where: { $0.number == number })?.account else { continue }
            if !names.contains(name) { names.append(name) }
        }
        return names
    }
}

extension ResolvedChunk {
    /// Whose data it is, as one account: another's where the lineage's account wrote over that one's data (SPEC V8). Nil where it is
    /// made of the data of several other accounts: then it must stay in parts, or one of them would be forgotten.
    func mergedOwner(in account: AccountNumber) -> AccountNumber? {
        var owners: Set<AccountNumber> = []
        if case .data(let key, _) = base { owners.formUnion([key.account, key.owner]) }
        for layer in patchLayers { owners.insert(layer.account) }
        owners.remove(account)
        return owners.count > 1 ? nil : owners.first ?? account
    }
}

extension ExportRule {
    /// - Throws: `.forbidden`, naming the accounts whose permission is missing.
    func check(_ chunk: ResolvedChunk) throws(StoreError) {
        let missing = missing(for: chunk)
        if missing.isEmpty { return }
        let names = missing.map { "\($0)" }.joined(separator: ", ")
        throw StoreError(.forbidden, "it holds data of \(names), who did not permit EXPORT")
    }
}
