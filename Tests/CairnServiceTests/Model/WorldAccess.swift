import CairnCore

/// Who may have what (SPEC D5), told as the specification tells it.
extension World {
    enum Resource: Hashable {
        case account
        case volume([UInt8])
        case snapshot([UInt8])
    }
    enum Permission: CaseIterable { case use, export }

    struct Grant: Hashable {
        let grantor: AccountID
        let resource: Resource
        let grantee: AccountID
        let permission: Permission
    }

    /// A volume, or a snapshot, with all that it stands on.
    struct Source {
        let pile: Pile
        let version: UInt64
        let sectors: Int
        let volume: [UInt8]
        let snapshot: [UInt8]?
        /// Blocks of a LOCAL volume itself are not here (SPEC V3).
        var isLocalVolume = false
        var isError = false

        var account: AccountID { pile.account }
        var chunks: Int { (sectors + pile.sectorsPerChunk - 1) / pile.sectorsPerChunk }
        func show(_ chunk: Int) -> Shown { pile.show(chunk, at: version, sectors: sectors) }
    }

    func source(_ volume: Volume) -> Source {
        Source(
            pile: volume.pile,
            version: volume.version,
            sectors: volume.sectors,
            volume: volume.id,
            snapshot: nil,
            isLocalVolume: volume.isLocal
        )
    }

    func source(_ snapshot: Snapshot) -> Source {
        Source(
            pile: snapshot.pile,
            version: snapshot.version,
            sectors: snapshot.sectors,
            volume: snapshot.volume,
            snapshot: snapshot.id,
            isError: snapshot.isError
        )
    }

    /// A grant for the snapshot, its volume, or the whole account; EXPORT is more than USE.
    func permits(_ wanted: Permission, by grantor: AccountID, _ volume: [UInt8], _ snapshot: [UInt8]?, to: AccountID)
        -> Bool
    {
        grants.contains { grant in
            guard grant.grantor == grantor, grant.grantee == to else { return false }
            guard grant.permission == .export || wanted == .use else { return false }
            switch grant.resource {
            case .account: return true
            case .volume(let id): return id == volume
            case .snapshot(let id): return id == snapshot
            }
        }
    }

    /// Whether the resource itself may be asked for at all; its data is another question.
    func maySee(_ source: Source, _ caller: AccountID, _ wanted: Permission) -> Bool {
        source.account == caller || permits(wanted, by: source.account, source.volume, source.snapshot, to: caller)
    }

    /// Of each step of what the source stands on, itself first: whose data is open to the caller when it has come so far down.
    func opened(_ source: Source, to caller: AccountID, _ wanted: Permission) -> [Set<AccountID>] {
        var opened: Set<AccountID> = [caller]
        var steps: [Set<AccountID>] = []
        var next: (pile: Pile, volume: [UInt8], snapshot: [UInt8]?)? = (source.pile, source.volume, source.snapshot)
        while let (pile, volume, snapshot) = next {
            if permits(wanted, by: pile.account, volume, snapshot, to: caller) { opened.insert(pile.account) }
            steps.append(opened)
            next = pile.below.map { ($0.pile, $0.volume, $0.snapshot) }
        }
        return steps
    }

    enum Verdict {
        case allowed
        case refused
        /// A chunk was written in part over what is closed to the caller, and nothing of that shows any more: whether the chunk still
        /// counts as that account's depends on when its parts are merged.
        case either

        func and(_ other: Verdict) -> Verdict {
            switch (self, other) {
            case (.refused, _), (_, .refused): .refused
            case (.either, _), (_, .either): .either
            default: .allowed
            }
        }
    }

    /// Whether the caller may have a chunk: each sector's owner must have opened what is on the way to it.
    func verdict(_ shown: Shown, _ source: Source, _ opened: [Set<AccountID>], _ caller: AccountID) -> Verdict {
        let isOpen = { (part: Shown.Part) in opened[part.depth].contains(part.account) }
        if !shown.owners.compactMap(\.self).allSatisfy(isOpen) { return .refused }
        if !shown.hasParts { return .allowed }
        // A chunk that was written in part counts as everybody's who is in it, from the first step on at which each appears.
        var accounts: [AccountID] = []
        var pile: Pile? = source.pile
        while let next = pile {
            accounts.append(next.account)
            pile = next.below?.pile
        }
        let isSure = shown.writers.allSatisfy { part in
            accounts.firstIndex(of: part.account).map { opened[$0].contains(part.account) } ?? true
        }
        return isSure ? .allowed : .either
    }
}
