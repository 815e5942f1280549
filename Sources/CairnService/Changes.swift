import CairnCore
import CairnCrypto
import CairnStore
import CairnWire

/// Carrying a change out on a shard, with or without an idempotency key.
extension Service {
    /// What a change needs of a group; small for all but uploads.
    struct Footprint {
        var durability = CommitDurability.durable
        var records = 0
        var bytes = 0
        var entries = 8
        /// Whether it frees space, and so is let in when the store is full.
        var reclaims = false
    }

    /// Runs `body` as one transaction of `shard`, and answers when it is durable. What `body` throws undoes it; so does that the
    /// account would have more than it may (SPEC R3).
    func change<Value: Sendable>(
        on shard: Shard,
        _ footprint: Footprint,
        _ context: CallContext,
        _ answer: @escaping Answer<Value>,
        _ body: @escaping @Sendable (Transaction) throws(ServiceError) -> Value
    ) {
        let hold = quotaHold(of: context.account, on: shard)
        shard.submit(
            for: context.account,
            durability: footprint.durability,
            records: footprint.records,
            bytes: footprint.bytes,
            entries: footprint.entries,
            reclaims: footprint.reclaims
        ) { (transaction) throws(StoreError) -> Result<Value, ServiceError> in
            do throws(ServiceError) {
                // Expired work is dropped here, before the disk (DESIGN §3).
                try context.checkWanted()
                if let hold { return .success(try hold.judge(transaction, body)) }
                return .success(try body(transaction))
            } catch {
                transaction.abort()
                return .failure(error)
            }
        } completion: { result in
            hold?.settle()
            answer(result.mapError { ServiceError($0) }.flatMap { $0 })
        }
    }

    /// What judges a change of the account on a shard by what the account may have; nil where it may have all.
    func quotaHold(of account: AccountID, on shard: Shard) -> QuotaHold? {
        let limits = limitTable.limits(of: account)
        guard limits.isQuota else { return nil }
        return QuotaHold(quotas.quota(of: account), limits, on: shard, all: store.shards)
    }

    /// As ``change(on:_:_:_:_:)``, and once only for each key: the answer is recorded in the same commit as the
    /// change, and given again to the same call (SPEC C5).
    func idempotent<Request: WireMessage, Response: WireMessage>(
        _ kind: IdempotentCall,
        key: [UInt8],
        parameters: Request,
        on shard: Shard,
        reclaims: Bool = false,
        _ context: CallContext,
        _ answer: @escaping Answer<Response>,
        _ body: @escaping @Sendable (Transaction) throws(ServiceError) -> Response
    ) {
        once(kind, key: key, parameters: parameters, context, answer) { receipt, answer in
            self.change(on: shard, Footprint(reclaims: reclaims), context, answer) {
                (transaction) throws(ServiceError) in
                let response = try body(transaction)
                try receipt?.keep(response, in: transaction)
                return response
            }
        }
    }

    /// What a call's last transaction leaves under the call's key.
    struct Receipt: Sendable {
        let kind: IdempotentCall
        let account: AccountID
        let key: [UInt8]
        let parameters: Fingerprint
        /// Milliseconds since 1970.
        let createdAt: UInt64

        func keep(_ response: some WireMessage, in transaction: Transaction) throws(ServiceError) {
            let record = IdempotencyRecord(
                call: kind,
                parameters: parameters,
                answer: response.encode(),
                createdAt: createdAt
            )
            try storeCall { () throws(StoreError) in
                try transaction.putIdempotencyRecord(record, account: account, key: key)
            }
        }
    }

    /// Runs `body` once only for each key, and gives its answer again to the same call (SPEC C5). `body` makes one or more changes,
    /// keeps the receipt (nil without a key) in the last of them, and then answers; one at a time for each key. Called on any thread.
    func once<Request: WireMessage, Response: WireMessage>(
        _ kind: IdempotentCall,
        key: [UInt8],
        parameters: Request,
        _ context: CallContext,
        _ answer: @escaping Answer<Response>,
        _ body: @escaping @Sendable (Receipt?, @escaping Answer<Response>) -> Void
    ) {
        do throws(ServiceError) { try TagRules.check(idempotencyKey: key) } catch { return answer(.failure(error)) }
        guard !key.isEmpty else { return body(nil, answer) }
        let gateKey = IdempotencyGate.Key(account: context.account, bytes: key)
        let leaving: Answer<Response> = { result in
            self.gate.leave(gateKey)
            answer(result)
        }
        gate.enter(gateKey) {
            self.workers.run(for: context.account) {
                let digest = parameters.encode().withUnsafeBytes { SHA256.hash($0) }
                do throws(ServiceError) {
                    // The key may have been used for a call that went to another shard.
                    for other in self.store.shards {
                        let record = try self.view(other) { (view) throws(ServiceError) in
                            try storeCall { () throws(StoreError) in
                                try view.idempotencyRecord(account: context.account, key: key)
                            }
                        }
                        if let record { return leaving(.success(try Self.replay(record, kind, digest))) }
                    }
                } catch { return leaving(.failure(error)) }
                body(
                    Receipt(kind: kind, account: context.account, key: key, parameters: digest, createdAt: self.now),
                    leaving
                )
            }
        }
    }

    /// The first answer again, or IDEMPOTENCY_MISMATCH.
    private static func replay<Response: WireMessage>(
        _ record: IdempotencyRecord,
        _ kind: IdempotentCall,
        _ digest: Fingerprint
    ) throws(ServiceError) -> Response {
        guard record.call == kind, record.parameters == digest else {
            throw ServiceError(.idempotencyMismatch, "the idempotency key was used for a call with other parameters")
        }
        do throws(WireError) {
            return try Response.decode(record.answer)
        } catch {
            throw ServiceError(.internalFailure, "a recorded answer does not decode: \(error)")
        }
    }
}
