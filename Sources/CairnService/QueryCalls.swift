import CairnCore
import CairnCrypto
import CairnStore
import CairnWire

/// QueryChunks (SPEC A1): asks each shard in one batch, for dedup of transfer is account-wide.
extension Service {
    public func queryChunks(
        _ request: Wire.QueryChunksRequest,
        _ context: CallContext,
        answer: @escaping Answer<Wire.QueryChunksResponse>
    ) {
        onWorker(context, answer) { () throws(ServiceError) in
            let tokens = try Self.fingerprints(request.tokens)
            var home: Shard?
            if !request.volumeID.isEmpty {
                guard let id = VolumeID(bytes: request.volumeID), let shard = self.shard(of: id.uuid) else {
                    throw ServiceError.noSuchVolume
                }
                _ = try self.view(shard) { (view) throws(ServiceError) in try self.volume(id, in: view, context) }
                home = shard
            }
            let leaseEnd = UnixTime.milliseconds + self.options.leaseMilliseconds
            let present = try self.present(tokens, home: home, context)
            var response = Wire.QueryChunksResponse()
            response.present = [UInt8](repeating: 0, count: (tokens.count + 7) / 8)
            for (index, isPresent) in present.enumerated() where isPresent {
                response.present[index / 8] |= 1 << (index % 8)
            }
            response.leaseExpiresAtMs = leaseEnd
            return response
        }
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

    private func present(_ tokens: [Fingerprint], home: Shard?, _ context: CallContext) throws(ServiceError) -> [Bool] {
        var present = tokens.map(ZeroChunk.isZero)
        let others = store.shards.filter { $0.index != home?.index }
        for shard in (home.map { [$0] } ?? []) + others {
            let missing = tokens.indices.filter { !present[$0] }
            if missing.isEmpty { break }
            let found = try storeCall { () throws(StoreError) in
                try shard.pin(account: context.account, missing.map { tokens[$0] })
            }
            for (index, isFound) in zip(missing, found) where isFound { present[index] = true }
        }
        return present
    }
}
