import CairnCore
import CairnTesting
import CairnWire

@testable import CairnService

/// ListChangedBlocks between any two, seals, and listings (SPEC R1, S6, V8).
extension ServiceModelRun {
    func compare() throws {
        guard let newer = pickSource() else { return }
        // Mostly related ones.
        let related = world.volumes.map(world.source) + world.snapshots.map(world.source)
        let older =
            chance(60)
            ? pick(related.filter { $0.pile === newer.pile || $0.pile === newer.pile.below?.pile }) : pickSource()
        guard let older else { return }
        try compare(older, newer, Caller(account: chance(70) ? newer.account : pickAccount(), isHost: false))
    }

    private func sectors(_ source: World.Source) -> [Int: Stamp] {
        var sectors: [Int: Stamp] = [:]
        for chunk in writtenChunks(source) {
            for (place, stamp) in source.show(chunk).stamps.enumerated() where stamp != 0 {
                sectors[chunk * source.pile.sectorsPerChunk + place] = stamp
            }
        }
        return sectors
    }

    private func compare(_ older: World.Source, _ newer: World.Source, _ caller: Caller) throws {
        last = "\(caller.account) compares what \(older.account) has with what \(newer.account) has"
        if let refusal = refusal(older, caller.account, .export) ?? refusal(newer, caller.account, .export) {
            return try isRefused(changes(older, newer, caller), refusal)
        }
        let count = newer.pile.sectorsPerChunk
        let (past, present) = (sectors(older), sectors(newer))
        let differing = Set(Set(past.keys).union(present.keys).filter { past[$0] != present[$0] }.map { $0 / count })
        let (openedOlder, openedNewer) = (
            world.opened(older, to: caller.account, .export), world.opened(newer, to: caller.account, .export)
        )
        let pastVerdict = writtenChunks(older).reduce(World.Verdict.allowed) {
            $0.and(world.verdict(older.show($1), older, openedOlder, caller.account))
        }
        let verdict = { [world] (chunk: Int) in world.verdict(newer.show(chunk), newer, openedNewer, caller.account) }
        let verdictOfAll = writtenChunks(newer).reduce(World.Verdict.allowed) { $0.and(verdict($1)) }
        let isSure = pastVerdict == .allowed && verdictOfAll == .allowed
        let isTold: Set<Int>
        switch try server.noting(isSure ? .answer : .request, { try changes(older, newer, caller) }) {
        case .failure(let error):
            try check(pastVerdict != .allowed || verdictOfAll != .allowed, "refused with \(error)")
            let codes: [ServiceError.Code] =
                older.account == caller.account || newer.account == caller.account
                ? [.permissionDenied, .invalidVolumeID, .invalidSnapshotID] : [.invalidVolumeID, .invalidSnapshotID]
            try check(codes.contains(error.code), "refused with \(error)")
            return
        case .success(let blocks):
            let size = newer.pile.chunkSize.bytes
            for block in blocks {
                let chunk = Int(block.offset) / size
                try check(chunk >= newer.chunks || verdict(chunk) != .refused, "chunk \(chunk) is told")
                if chunk < newer.chunks { try describes(block, newer.show(chunk), chunk) }
            }
            isTold = Set(blocks.map { Int($0.offset) / size })
            try check(isTold.count == blocks.count, "a chunk is listed twice")
        }
        try check(differing.allSatisfy { $0 >= newer.chunks || verdict($0) != .refused }, "what is closed was compared")
        try check(differing.isSubset(of: isTold), "chunks \(differing.subtracting(isTold)) differ and are not listed")
        if pastVerdict == .allowed {
            try check(isTold == differing, "chunks \(isTold.subtracting(differing)) are listed and do not differ")
        }
    }

    private func changes(_ older: World.Source, _ newer: World.Source, _ caller: Caller) throws
        -> Result<[Wire.BlockDescription], ServiceError>
    {
        var request = Wire.ListChangedBlocksRequest(older: target(older), newer: target(newer))
        request.page = .init(limit: chance(50) ? 1000 : UInt32(1 + random.below(6)))
        var blocks: [Wire.BlockDescription] = []
        while true {
            switch server.call(server.service.listChangedBlocks, request, caller.context) {
            case .failure(let error): return .failure(error)
            case .success(let page):
                blocks += page.blocks
                if page.nextPageToken.isEmpty { return .success(blocks) }
                request.page?.pageToken = page.nextPageToken
            }
        }
    }

    // MARK: Descriptions

    func seals() throws {
        for snapshot in world.snapshots where chance(30) {
            try describe(snapshot, by: Caller(account: chance(60) ? snapshot.account : pickAccount(), isHost: false))
        }
    }

    func describe(_ snapshot: World.Snapshot, by caller: Caller) throws {
        last = "\(caller.account) describes a snapshot of \(snapshot.account)"
        let source = world.source(snapshot)
        let target =
            chance(50) ? Wire.DescribeSnapshotRequest.Target.snapshotID(snapshot.id) : .snapshotToken(snapshot.token)
        let result = server.call(server.service.describeSnapshot, .init(target: target), caller.context)
        guard world.maySee(source, caller.account, .use) else {
            return try isRefused(result, (Refusal(.invalidSnapshotID), .noSuchSnapshot))
        }
        guard let told = try succeeds(result).snapshot else { throw ModelFailure("\(last): nothing is told") }
        let state: Wire.SnapshotState = snapshot.isError ? .error : snapshot.isComplete ? .complete : .inProgress
        try check(told.state == state, "it is \(told.state) instead of \(state)")
        try check(
            told.dataVersion == snapshot.version && told.size == UInt64(snapshot.sectors * 512),
            "another version or size"
        )
        if snapshot.isError { return }
        try check(
            told.needsRebase == (snapshot.isPending && snapshot.needsRebase),
            "needs_rebase is \(told.needsRebase)"
        )
        try check(told.progress == snapshot.progress, "\(told.progress) percent")
        try check(Dictionary(uniqueKeysWithValues: told.tags.map { ($0.key, $0.value) }) == snapshot.tags, "other tags")
        try checkSeal(told, snapshot, source, caller)
    }

    private func checkSeal(
        _ told: Wire.SnapshotDescription,
        _ snapshot: World.Snapshot,
        _ source: World.Source,
        _ caller: Caller
    )
        throws
    {
        let opened = world.opened(source, to: caller.account, .export)
        let chunks = writtenChunks(source).map { ($0, source.show($0)) }
        let verdict = chunks.reduce(World.Verdict.allowed) {
            $0.and(world.verdict($1.1, source, opened, caller.account))
        }
        if !snapshot.isComplete || verdict == .refused {
            // That one's own is not known yet tells nothing.
            let isPending = snapshot.isComplete && caller.account == snapshot.account && told.seal?.pending == true
            try check(told.seal == nil || isPending, "a seal is told")
        }
        if caller.account != snapshot.account { try check(told.owners.isEmpty, "owners are told") }
        var pile: Pile? = snapshot.pile
        var isOpen = true
        for step in opened {
            if let pile { isOpen = isOpen && step.contains(pile.account) }
            pile = pile?.below?.pile
        }
        if snapshot.isComplete, isOpen { try check(told.seal != nil, "no seal is told") }
        guard let seal = told.seal, !seal.pending else { return }
        try check(seal.value == self.seal(source, chunks), "another seal")
        guard caller.account == snapshot.account, chunks.allSatisfy({ Set($1.writers.map(\.account)).count <= 1 }),
            chunks.allSatisfy({ !$1.isZero || $1.writers.isEmpty })
        else { return }
        var shares: [String: UInt64] = [:]
        for (chunk, shown) in chunks {
            let room = min(source.pile.sectorsPerChunk, source.sectors - chunk * source.pile.sectorsPerChunk)
            if let owner = shown.writers.first?.account { shares[owner.name, default: 0] += UInt64(room * 512) }
        }
        let owners = Dictionary(uniqueKeysWithValues: told.owners.map { ($0.account, $0.bytes) })
        try check(owners == shares, "owners \(owners) instead of \(shares)")
    }

    /// SPEC S6, from the documented encoding.
    private func seal(_ source: World.Source, _ chunks: [(Int, Shown)]) -> [UInt8] {
        let zero = contents.fingerprint([Stamp](repeating: 0, count: source.pile.sectorsPerChunk)).bytes
        var level = [[UInt8]](repeating: zero, count: source.chunks)
        for (chunk, shown) in chunks { level[chunk] = contents.fingerprint(shown.stamps).bytes }
        var height: UInt8 = 0
        while level.count > 1 {
            height += 1
            level = stride(from: 0, to: level.count, by: 256).map { start in
                let children = level[start..<min(start + 256, level.count)]
                return ModelSeal.hash(Array("cairn-seal-node-1".utf8) + [height] + children.flatMap(\.self))
            }
        }
        let size = withUnsafeBytes(of: UInt64(source.sectors * 512).littleEndian, Array.init)
        let chunkSize = withUnsafeBytes(of: UInt32(source.pile.chunkSize.bytes).littleEndian, Array.init)
        return ModelSeal.hash(Array("cairn-seal-1".utf8) + size + chunkSize + level[0])
    }

    // MARK: Listings

    func listings(of account: AccountID) throws {
        last = "\(account)'s listings"
        var page = Wire.PageRequest(limit: UInt32(1 + random.below(20)))
        var found: [[UInt8]] = []
        repeat {
            let answer = try succeeds(server.call(server.service.listVolumes, .init(page: page), context(account)))
            for told in answer.volumes {
                found.append(told.volumeID)
                guard let volume = world.volume(told.volumeID), volume.account == account else {
                    throw ModelFailure("\(last): a volume that is not there")
                }
                try check(
                    told.dataVersion == volume.version && told.size == UInt64(volume.sectors * 512),
                    "another version or size"
                )
                try check(told.attachmentGeneration == volume.attachment, "another attachment")
            }
            page.pageToken = answer.nextPageToken
        } while !page.pageToken.isEmpty
        try check(Set(found) == Set(volumes(of: account).map(\.id)) && Set(found).count == found.count, "other volumes")
        found = []
        repeat {
            let answer = try succeeds(server.call(server.service.listSnapshots, .init(page: page), context(account)))
            found += answer.snapshots.map(\.snapshotID)
            page.pageToken = answer.nextPageToken
        } while !page.pageToken.isEmpty
        try check(
            Set(found) == Set(snapshots(of: account).map(\.id)) && Set(found).count == found.count,
            "other snapshots"
        )
        try check(try toldGrants(by: account) == Set(world.grants.filter { $0.grantor == account }), "other grants")
    }
}
