import CairnCore
import CairnCrypto
import CairnStore
import CairnWire

/// Where an account has chunks: each shard is asked for those that were not found before, for dedup of transfer is account-wide.
struct ChunkSearch: Sendable {
    let tokens: [Fingerprint]
    /// The shard on which each is, and was pinned; nil for zeros, which are everywhere, and for what is nowhere.
    private(set) var places: [Shard?]
    /// Those that are still asked for.
    private(set) var missing: [Int]
    private var shards: ArraySlice<Shard>
    /// How many of the missing ones the first of the shards was asked for.
    private var asked = 0

    init(_ tokens: [Fingerprint], on shards: [Shard]) {
        self.tokens = tokens
        self.shards = shards[...]
        places = tokens.map { _ in nil }
        missing = tokens.indices.filter { !ZeroChunk.isZero(tokens[$0]) }
    }

    /// - Returns: whether it is over.
    mutating func step(_ account: AccountID) throws(ServiceError) -> Bool {
        var room = Workers.lookUpsPerJob
        while let shard = shards.first, !missing.isEmpty {
            if room == 0 { return false }
            let step = missing[asked..<min(missing.count, asked + room)]
            let found = try storeCall { () throws(StoreError) in
                try shard.pin(account: account, step.map { tokens[$0] })
            }
            for (place, isFound) in zip(step, found) where isFound { places[place] = shard }
            room -= step.count
            asked += step.count
            guard asked == missing.count else { continue }
            missing.removeAll { places[$0] != nil }
            shards = shards.dropFirst()
            asked = 0
        }
        return true
    }
}

/// QueryChunks (SPEC A1).
extension Service {
    public func queryChunks(
        _ request: Wire.QueryChunksRequest,
        _ context: CallContext,
        answer: @escaping Answer<Wire.QueryChunksResponse>
    ) {
        beginOnWorker(context, bytes: searchCost(of: request.tokens.count), answer) { () throws(ServiceError) in
            let tokens = try Self.fingerprints(request.tokens)
            var home: Shard?
            if !request.volumeID.isEmpty {
                guard let id = VolumeID(bytes: request.volumeID), let shard = self.shard(of: id.uuid) else {
                    throw ServiceError.noSuchVolume
                }
                _ = try self.view(shard) { (view) throws(ServiceError) in try self.volume(id, in: view, context) }
                home = shard
            }
            // Of the first pins.
            let leaseEnd = self.now + self.options.leaseMilliseconds
            self.search(for: tokens, near: home, context) { result in
                answer(
                    result.map { search in
                        var response = Wire.QueryChunksResponse()
                        response.present = [UInt8](repeating: 0, count: (tokens.count + 7) / 8)
                        for index in tokens.indices { response.present[index / 8] |= 1 << (index % 8) }
                        for index in search.missing { response.present[index / 8] &= ~(1 << (index % 8)) }
                        response.leaseExpiresAtMs = leaseEnd
                        return response
                    }
                )
            }
        }
    }

    /// Pins chunks of the account where they are found, a step at a time. Runs on a worker.
    /// - Parameter near: the shard that is asked first.
    func search(
        for tokens: [Fingerprint],
        near: Shard?,
        _ context: CallContext,
        then body: @escaping Answer<ChunkSearch>
    ) {
        let others = store.shards.filter { $0.index != near?.index }
        let search = ChunkSearch(tokens, on: (near.map { [$0] } ?? []) + others)
        inSteps(context, search, { (search) throws(ServiceError) in try search.step(context.account) }, then: body)
    }

    /// What the first step of a search costs, in bytes.
    func searchCost(of tokens: Int) -> Int {
        min(tokens * store.shardCount, Workers.lookUpsPerJob) * Workers.lookUpBytes
    }

    static func fingerprints(_ tokens: [[UInt8]]) throws(ServiceError) -> [Fingerprint] {
        guard tokens.count <= Limits.tokensPerCall else {
            throw ServiceError(
                .invalidArgument,
                "\(tokens.count) tokens; at most \(Limits.tokensPerCall) go in one call"
            )
        }
        var fingerprints: [Fingerprint] = []
        fingerprints.reserveCapacity(tokens.count)
        for (index, bytes) in tokens.enumerated() {
            guard let token = Fingerprint(bytes: bytes) else {
                throw ServiceError(.invalidChunkToken, "a token has 32 bytes, not \(bytes.count)", blockIndex: index)
            }
            fingerprints.append(token)
        }
        return fingerprints
    }
}
