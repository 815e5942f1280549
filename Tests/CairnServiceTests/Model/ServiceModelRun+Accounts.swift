import CairnCore
import CairnTesting
import CairnWire
import Foundation

@testable import CairnService
@testable import CairnStore

/// Staging, leases, tokens (SPEC U7, A1), quotas (R3) and usage (R2).
extension ServiceModelRun {
    // MARK: Leases

    func stage() throws {
        let account = pickAccount()
        last = "stage"
        let size = ChunkSize(bytes: configuration.chunks[random.below(configuration.chunks.count)])!
        var request = Wire.UploadBlockRequest(chunkSize: UInt32(size.bytes))
        request.leaseSeconds = [1, 5, 0][random.below(3)]
        var refusal: Refusal?
        if chance(30), let volume = pick(world.volumes) {
            request.nearVolumeID = volume.id
            if volume.account != account { refusal = Refusal(.invalidVolumeID) }
        }
        var payload: [UInt8] = []
        var chunks: [ModelContents.Chunk] = []
        for place in 0...random.below(3) {
            let old = chance(30) ? pick(contents.known.filter { $0.size == size }) : nil
            let chunk = old ?? contents.make(size, room: size.bytes / 512, &random)
            let bytes = ModelContents.bytes(chunk.stamps)
            request.blocks.append(ServiceHarness.block(bytes, at: UInt64(place * size.bytes)))
            payload += bytes
            chunks.append(chunk)
        }
        if refusal == nil, chance(8) {
            let index = random.below(chunks.count)
            request.blocks[index].offset += 512
            refusal = Refusal(.invalidArgument, at: index)
        }
        guard let answer = try judge(server.upload(request, payload, context(account)), refusal) else { return }
        try check(answer.chunks.map(\.token) == chunks.map(\.fingerprint.bytes), "other tokens")
        let seconds = request.leaseSeconds == 0 ? LeaseTime.usualSeconds : request.leaseSeconds
        let end = try leaseEnd(told: answer.leaseExpiresAtMs, after: UInt64(seconds) * 1000)
        for chunk in chunks {
            note(chunk.stamps, account)
            promise(chunk.fingerprint, to: account, until: end)
            if request.leaseSeconds == 0 { longLeases[account, default: []].insert(chunk.fingerprint) }
        }
    }

    private func someChunks() -> [ModelContents.Chunk] {
        (0...random.below(6)).compactMap { _ in pick(contents.known) }
    }

    /// SPEC A1: what is told to be here is what the account had here, and stays for the lease.
    func query() throws {
        let account = pickAccount()
        last = "\(account) asks for chunks"
        let chunks = someChunks()
        let namings = chunks.map { naming($0, account, $0.size) }
        let request = Wire.QueryChunksRequest(tokens: chunks.map(\.fingerprint.bytes))
        let context = context(account, host: chance(20))
        let answer = try succeeds(server.call(server.service.queryChunks, request, context))
        let end = try leaseEnd(told: answer.leaseExpiresAtMs, after: configuration.leaseMilliseconds)
        // What was told to be here stays here, for as long as was said.
        try server.settle()
        let again = try succeeds(server.call(server.service.queryChunks, request, context))
        let isKept = zip(answer.present, again.present).allSatisfy { $0 & ~$1 == 0 }
        try check(isKept, "a chunk that was told to be here is gone")
        for (index, chunk) in chunks.enumerated() {
            let isHere = answer.present[index / 8] & 1 << (index % 8) != 0
            switch namings[index] {
            case .known:
                try check(isHere, "a chunk is not told to be here")
                promise(chunk.fingerprint, to: account, until: end)
            case .unknown: try check(!isHere, "a chunk is told to be here that \(account) never had")
            case .either: mayHold(chunk.fingerprint, for: account, until: latest + configuration.leaseMilliseconds)
            }
        }
    }

    func renew() throws {
        let account = pickAccount()
        last = "\(account) renews leases"
        let chunks = someChunks()
        let namings = chunks.map { naming($0, account, $0.size) }
        let request = Wire.RenewLeaseRequest(
            tokens: chunks.map(\.fingerprint.bytes),
            leaseSeconds: UInt32(1 + random.below(5))
        )
        let milliseconds = UInt64(request.leaseSeconds) * 1000
        for chunk in chunks { mayHold(chunk.fingerprint, for: account, until: latest + milliseconds) }
        let isSure = Self.isSure(namings)
        let result = server.noting(isSure ? .answer : .request) {
            server.call(server.service.renewLease, request, context(account))
        }
        switch result {
        case .failure(let error):
            let index = error.blockIndex ?? -1
            let isExpected = namings.indices.contains(index) && namings[index] != .known
            try check(error.code == .invalidChunkToken && isExpected, "refused with \(error)")
        case .success(let answer):
            try check(!namings.contains(.unknown), "a lease of a chunk that \(account) never had")
            let end = try leaseEnd(told: answer.leaseExpiresAtMs, after: milliseconds)
            let isHere = try server.noting(isSure ? .answer : .nothing) { try areHere(chunks, account) }
            try check(isHere.allSatisfy(\.self), "a chunk with a lease is not told to be here")
            guard namings.allSatisfy({ $0 == .known }) else { return }
            for chunk in chunks { promise(chunk.fingerprint, to: account, until: end) }
        }
    }

    func release() throws {
        let account = pickAccount()
        last = "\(account) releases leases"
        let tokens = Set(someChunks().map(\.fingerprint))
        let request = Wire.ReleaseLeaseRequest(tokens: tokens.sorted().map(\.bytes))
        _ = try succeeds(server.call(server.service.releaseLease, request, context(account)))
        for token in tokens {
            promises[account]?[token] = nil
            longLeases[account]?.remove(token)
        }
    }

    /// Leases and pins end; what nothing else holds is then no longer there for anybody, and each way to name it says so (SPEC U7, U1).
    func expire() throws {
        let account = pickAccount()
        last = "\(account)'s leases end"
        let size = ChunkSize(bytes: configuration.chunks[random.below(configuration.chunks.count)])!
        let staged = (0...random.below(2)).map { _ in contents.make(size, room: size.bytes / 512, &random) }
        let (seconds, milliseconds): (UInt32, UInt64) = (1, 1000)
        for chunk in staged {
            let bytes = ModelContents.bytes(chunk.stamps)
            var request = Wire.UploadBlockRequest(chunkSize: UInt32(size.bytes), leaseSeconds: seconds)
            request.blocks = [ServiceHarness.block(bytes, at: 0)]
            let answer = try succeeds(server.upload(request, bytes, context(account)))
            note(chunk.stamps, account)
            let end = try leaseEnd(told: answer.leaseExpiresAtMs, after: milliseconds)
            promise(chunk.fingerprint, to: account, until: end)
        }
        try namesAll(staged, account)
        let drift = configuration.driftMilliseconds
        if drift > 0 {
            // So that they end in the midst of what may still pass in this step.
            server.clock.putForward(milliseconds: milliseconds - drift / 2)
            try endMeanwhile(staged, account)
        }
        server.clock.putForward(milliseconds: milliseconds + configuration.leaseMilliseconds + drift)
        try server.settle(purged: true)
        let present = stampsPresent()
        for account in Self.accounts {
            let gone = contents.known.filter { chunk in
                holds[account]?[chunk.fingerprint] ?? 0 <= earliest
                    && longLeases[account]?.contains(chunk.fingerprint) != true
                    && chunk.stamps.allSatisfy { $0 == 0 || !present.contains($0) }
            }
            try checkGone(gone.suffix(6).map(\.self), account)
        }
    }

    /// While a lease lasts its chunk can be named.
    private func namesAll(_ chunks: [ModelContents.Chunk], _ account: AccountID) throws {
        let isHere = try areHere(chunks, account).allSatisfy(\.self)
        try check(isHere, "a chunk that was just staged is not told to be here")
    }

    /// Which chunks an account is told that it has here; they stay then for as long as pins last.
    private func areHere(_ chunks: [ModelContents.Chunk], _ account: AccountID) throws -> [Bool] {
        let request = Wire.QueryChunksRequest(tokens: chunks.map(\.fingerprint.bytes))
        let answer = try succeeds(server.call(server.service.queryChunks, request, context(account)))
        for chunk in chunks {
            mayHold(chunk.fingerprint, for: account, until: latest + configuration.leaseMilliseconds)
        }
        return chunks.indices.map { answer.present[$0 / 8] & 1 << ($0 % 8) != 0 }
    }

    /// Chunks whose leases end while they are asked for may be here, or be gone. What is told first holds for the calls that follow.
    private func endMeanwhile(_ chunks: [ModelContents.Chunk], _ account: AccountID) throws {
        if chance(50) { try server.settle() }
        let isHere = try areHere(chunks, account)
        try server.settle()
        try check(try areHere(chunks, account) == isHere, "chunks came, or went, that were told to be gone, or here")
        let renewal = Wire.RenewLeaseRequest(tokens: chunks.map(\.fingerprint.bytes), leaseSeconds: 1)
        for chunk in chunks { mayHold(chunk.fingerprint, for: account, until: latest + 1000) }
        let result = server.noting(.request) { server.call(server.service.renewLease, renewal, context(account)) }
        if let gone = isHere.firstIndex(of: false) {
            try isRefused(result, Refusal(.invalidChunkToken, at: gone))
        } else {
            _ = try leaseEnd(told: try succeeds(result).leaseExpiresAtMs, after: 1000)
        }
        try check(try areHere(chunks, account) == isHere, "chunks came, or went, when their leases were to be renewed")
    }

    private func checkGone(_ chunks: [ModelContents.Chunk], _ account: AccountID) throws {
        guard let first = chunks.first else { return }
        let query = Wire.QueryChunksRequest(tokens: chunks.map(\.fingerprint.bytes))
        let answer = try succeeds(server.call(server.service.queryChunks, query, context(account)))
        try check(answer.present.allSatisfy { $0 == 0 }, "a chunk that nothing holds is told to be here")
        let renewal = Wire.RenewLeaseRequest(tokens: [first.fingerprint.bytes], leaseSeconds: 1)
        let refusal = Refusal(.invalidChunkToken, at: 0)
        try isRefused(server.call(server.service.renewLease, renewal, context(account)), refusal)
        let fitting = volumes(of: account, local: false).first { $0.pile.chunkSize == first.size }
        guard let volume = fitting else { return }
        var block = Wire.UploadBlock()
        (block.length, block.source) = (UInt32(first.size.bytes), .token(first.fingerprint.bytes))
        var upload = Wire.UploadBlockRequest(target: .init(target: .volumeID(volume.id)))
        upload.blocks = [block]
        try isRefused(server.upload(upload, [], context(account)), refusal)
    }

    /// All that anything shows, or is made of, or could show once something else is gone.
    private func stampsPresent() -> Set<Stamp> {
        var stamps: Set<Stamp> = []
        var seen: Set<ObjectIdentifier> = []
        for pile in world.volumes.map(\.pile) + world.snapshots.map(\.pile) {
            var next: Pile? = pile
            while let pile = next, seen.insert(ObjectIdentifier(pile)).inserted {
                for chunks in pile.versions.values {
                    for chunk in chunks.values { stamps.formUnion(chunk.covered.union(chunk.sectors.values)) }
                }
                next = pile.below?.pile
            }
        }
        return stamps
    }

    // MARK: Quotas

    private func limit(_ account: AccountID, _ limits: Wire.AccountLimits?) throws {
        _ = try succeeds(
            server.call(server.service.setAccountLimits, .init(account: account.name, limits: limits), context(account))
        )
    }

    private func facts(_ account: AccountID) throws -> Wire.DescribeAccountResponse {
        try succeeds(server.call(server.service.describeAccount, .init(), context(account)))
    }

    private func logicalBytes(_ account: AccountID) -> UInt64 {
        volumes(of: account).reduce(0) { $0 + UInt64($1.sectors * 512) }
    }

    private func checkFacts(_ account: AccountID) throws -> Wire.Usage {
        let facts = try facts(account)
        let (volumes, snapshots) = (volumes(of: account), snapshots(of: account).filter { !$0.isInitial })
        try check(
            facts.volumes == UInt64(volumes.count) && facts.snapshots == UInt64(snapshots.count),
            "\(facts.volumes) volumes and \(facts.snapshots) snapshots instead of \(volumes.count) and \(snapshots.count)"
        )
        guard let usage = facts.usage else { throw ModelFailure("\(last): no usage") }
        try check(usage.logicalBytes == logicalBytes(account), "\(usage.logicalBytes) logical bytes")
        return usage
    }

    /// What fits is let through, what is one beyond is refused, and changes nothing.
    func quota() throws {
        let account = pickAccount()
        last = "\(account)'s quota"
        // Merges that a quota did not allow are tried again after a while.
        defer {
            try? limit(account, nil)
            server.clock.putForward(milliseconds: 5000)
        }
        let snapshots = snapshots(of: account).filter { !$0.isInitial }
        let context = context(account)
        switch random.below(4) {
        case 0:
            try limit(account, .init(volumes: UInt64(max(1, volumes(of: account).count))))
            guard !volumes(of: account).isEmpty else { return }
            let request = Wire.CreateVolumeRequest(size: 1 << 20)
            try isRefused(server.call(server.service.createVolume, request, context), Refusal(.quotaExceeded))
        case 1:
            guard let volume = pick(volumes(of: account)), !snapshots.isEmpty else { return }
            try limit(account, .init(snapshots: UInt64(snapshots.count)))
            let request = Wire.CreateSnapshotRequest(volumeID: volume.id)
            try isRefused(server.call(server.service.createSnapshot, request, context), Refusal(.quotaExceeded))
        case 2:
            guard let volume = pick(volumes(of: account)) else { return }
            let room = UInt64(random.below(20) * 512)
            try limit(account, .init(logicalBytes: logicalBytes(account) + room))
            let size = UInt64(volume.sectors * 512) + room
            let beyond = Wire.ResizeVolumeRequest(volumeID: volume.id, size: size + 512)
            try isRefused(server.call(server.service.resizeVolume, beyond, context), Refusal(.quotaExceeded))
            _ = try succeeds(server.call(server.service.resizeVolume, .init(volumeID: volume.id, size: size), context))
            volume.sectors = Int(size / 512)
            isDurable(volume.id)
        default: try storedQuota(account)
        }
        _ = try checkFacts(account)
    }

    private func storedQuota(_ account: AccountID) throws {
        guard let volume = pick(volumes(of: account, local: false)) else { return }
        let place = Place(source: world.source(volume))
        // What the background has still to do changes how much is stored.
        try server.settle()
        let stored = max(1, try checkFacts(account).storedBytes)
        try server.noting(.nothing) { try limit(account, .init(storedBytes: stored)) }
        // New bytes, where no parts are: more is stored by it, whatever it replaces.
        let chunk = 9
        guard !place.source.show(chunk).hasParts, place.source.show(chunk).whole == .nothing else { return }
        let content = contents.make(place.pile.chunkSize, room: place.count, &random)
        guard content.stamps.contains(where: { $0 != 0 }) else { return }
        let bytes = ModelContents.bytes(content.stamps)
        var request = Wire.UploadBlockRequest(target: .init(target: .volumeID(volume.id)))
        request.blocks = [ServiceHarness.block(bytes, at: UInt64(chunk * place.pile.chunkSize.bytes))]
        let answer = server.noting(.request) { server.upload(request, bytes, context(account)) }
        try server.noting(.nothing) {
            if case .success = answer {
                // What was pinned, or leased, has become free meanwhile, and made room.
                let after = try checkFacts(account).storedBytes
                try check(after <= stored, "\(after) bytes are stored of \(stored)")
            } else {
                try isRefused(answer, Refusal(.quotaExceeded))
                try limit(account, nil)
                _ = try succeeds(server.upload(request, bytes, context(account)))
            }
        }
        isDurable(volume.id)
        apply([(chunk, .whole(.data, content.stamps))], place)
    }

    // MARK: Usage

    func usage() throws {
        let account = pickAccount()
        last = "\(account)'s usage"
        _ = try checkFacts(account)
        let context = context(account)
        let snapshots = snapshots(of: account)
        let total = try succeeds(server.call(server.service.getUsage, .init(), context)).total
        let logical =
            logicalBytes(account) + snapshots.filter { !$0.isInitial }.reduce(0) { $0 + UInt64($1.sectors * 512) }
        try check(total?.logicalBytes == logical, "\(total?.logicalBytes ?? 0) logical bytes instead of \(logical)")
        let sources =
            snapshots.filter { !$0.isError }.map(world.source)
            + volumes(of: account, local: false).map(world.source)
        let chosen = sources.filter { _ in chance(40) }
        guard !chosen.isEmpty else { return }
        let answer = try succeeds(server.call(server.service.getUsage, .init(targets: chosen.map(target)), context))
        try check(answer.each.count == chosen.count, "\(answer.each.count) usages")
        for (source, told) in zip(chosen, answer.each) {
            try check(told.logicalBytes == UInt64(source.sectors * 512), "\(told.logicalBytes) logical bytes")
            if let unique = uniqueBytes([source], of: account) {
                try check(told.uniqueBytes == unique, "\(told.uniqueBytes) unique bytes instead of \(unique)")
            }
        }
        // Of several on one shard a chunk of the same account counts once.
        if Set(chosen.map { Self.shard(of: $0.volume) }).count == 1, let unique = uniqueBytes(chosen, of: account) {
            try check(
                answer.total?.uniqueBytes == unique,
                "\(answer.total?.uniqueBytes ?? 0) unique bytes instead of \(unique)"
            )
        }
    }

    /// Nil where there are parts of chunks, or chunks that are not whole: those are counted as they happen to be kept.
    private func uniqueBytes(_ sources: [World.Source], of account: AccountID) -> UInt64? {
        var held: Set<[Stamp]> = []
        var bytes: UInt64 = 0
        for source in sources {
            let count = source.pile.sectorsPerChunk
            for chunk in writtenChunks(source) {
                let shown = source.show(chunk)
                if shown.hasParts || shown.whole == .data && (chunk + 1) * count > source.sectors { return nil }
                // What another account wrote is its own to know of (SPEC C3).
                guard shown.whole == .data, shown.writers.first?.account == account else { continue }
                // It may have been a shorter last one when it was written.
                if shown.stamps.last == 0 { return nil }
                if held.insert(shown.stamps).inserted { bytes += UInt64(count * 512) }
            }
        }
        return bytes
    }

    /// What deletion is said to free is what it then frees (SPEC R2).
    func freed() throws {
        guard let snapshot = pick(world.snapshots.filter { !$0.isInitial }) else { return }
        last = "what deleting a snapshot of \(snapshot.account) frees"
        // Cancelling lets what stands on it be merged, which takes or frees space of its own.
        if snapshot.isPending || !snapshot.isComplete { return }
        try server.settle()
        let isExact = try !hasPartsToMerge()
        let leases = try leaseEnds()
        let context = context(snapshot.account)
        let request = Wire.GetUsageRequest(targets: [target(world.source(snapshot))], freedByDeletion: true)
        let freed = try succeeds(server.call(server.service.getUsage, request, context)).freedBytes
        let before = try checkFacts(snapshot.account).storedBytes
        _ = try succeeds(
            server.call(server.service.deleteSnapshot, Wire.DeleteSnapshotRequest(snapshotID: snapshot.id), context)
        )
        world.remove(snapshot)
        isDurable(snapshot.id)
        try waitForGrants(of: snapshot.account)
        try server.settle()
        let after = try checkFacts(snapshot.account).storedBytes
        // A lease that ended meanwhile has freed something as well.
        guard isExact, try leaseEnds() == leases else { return }
        try check(before - after == freed, "\(before - after) bytes are free instead of \(freed)")
    }

    /// The leases that hold chunks by themselves, shard by shard, the first to end first.
    private func leaseEnds() throws -> [[[UInt8]]] {
        try server.store.shards.map { shard in
            let cursor = shard.makeView().index.makeCursor()
            var ends: [[UInt8]] = []
            cursor.seek(Key(.leaseEnds).bytes)
            while try cursor.isValid(), cursor.key.first == Table.leaseEnds.rawValue {
                ends.append(Array(cursor.key))
                cursor.next()
            }
            return ends
        }
    }

    /// Whether the background may merge something at any time.
    private func hasPartsToMerge() throws -> Bool {
        for shard in server.store.shards {
            let cursor = shard.makeView().index.makeCursor()
            cursor.seek(Key(.patched).bytes)
            while try cursor.isValid(), cursor.key.first == Table.patched.rawValue {
                if cursor.value.first ?? 255 >= Transaction.mergePatches { return true }
                cursor.next()
            }
        }
        return false
    }
}
