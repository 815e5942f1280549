import CairnCore
import CairnStore
import CairnWire

/// What a transaction tells its completion.
// Safety: the transaction writes it, on its shard's queue, before its completion reads it.
private final class RemovedResources: @unchecked Sendable {
    /// Of the volume something may be left.
    var resources: [GrantResource] = []
}

/// DeleteVolume and DeleteSnapshot (SPEC V9, S8): what is gone has no grants any more.
extension Service {
    /// Deletes once only for each key, and withdraws the account's grants for what is gone by it.
    /// - Parameters:
    ///   - parameters: the request without its key.
    ///   - body: says what is gone, and what may be.
    func delete<Request: WireMessage, Response: WireMessage>(
        _ kind: IdempotentCall,
        key: [UInt8],
        parameters: Request,
        on shard: Shard,
        _ context: CallContext,
        _ response: Response,
        _ answer: @escaping Answer<Response>,
        _ body: @escaping @Sendable (Transaction) throws(ServiceError) -> [GrantResource]
    ) {
        let removed = RemovedResources()
        let withdrawing: Answer<Response> = { result in
            if case .success = result { self.withdrawGrants(for: removed.resources, of: context.account) }
            answer(result)
        }
        idempotent(kind, key: key, parameters: parameters, on: shard, reclaims: true, context, withdrawing) {
            (transaction) throws(ServiceError) in
            removed.resources = try body(transaction)
            return response
        }
    }
}
