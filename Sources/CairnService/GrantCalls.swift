import CairnCore
import CairnStore
import CairnWire

/// CreateGrant, DeleteGrant, ListGrants (SPEC D5). A grant is kept on its grantor's home shard.
extension Service {
    /// The caller shares what is its own. A grant that is there already is answered as it is.
    public func createGrant(
        _ request: Wire.CreateGrantRequest,
        _ context: CallContext,
        answer: @escaping Answer<Wire.CreateGrantResponse>
    ) {
        var parameters = request
        parameters.idempotencyKey = []
        parameters.grant?.createdAtMs = 0
        let grant: Grant
        do throws(ServiceError) {
            grant = try self.grant(request.grant, context)
        } catch { return answer(.failure(error)) }
        once(.createGrant, key: request.idempotencyKey, parameters: parameters, context, answer) { receipt, answer in
            self.workers.run(for: context.account) {
                // Asked only now: a call that is said again gets its first answer, though what was granted may be gone.
                do throws(ServiceError) {
                    try context.checkWanted()
                    try self.checkOwned(grant.resource, context)
                } catch { return answer(.failure(error)) }
                let answering: Answer<Wire.CreateGrantResponse> = { result in
                    // What was deleted meanwhile takes its grants with it, this one too.
                    if case .success = result { self.withdrawGrants(for: [grant.resource], of: context.account) }
                    answer(result)
                }
                // The grants that are there are counted: of the queue's time as much as so many entries.
                let footprint = Footprint(entries: Limits.grantsToOne)
                self.change(on: self.homeShard(of: context.account), footprint, context, answering) {
                    (transaction) throws(ServiceError) in
                    let given = try storeCall { () throws(StoreError) in try transaction.give(grant) }
                    let response = Wire.CreateGrantResponse(grant: Self.wire(given))
                    try receipt?.keep(response, in: transaction)
                    return response
                }
            }
        }
    }

    /// Withdrawn with the next call that asks. What was granted may be gone meanwhile.
    public func deleteGrant(
        _ request: Wire.DeleteGrantRequest,
        _ context: CallContext,
        answer: @escaping Answer<Wire.DeleteGrantResponse>
    ) {
        var parameters = request
        parameters.idempotencyKey = []
        parameters.grant?.createdAtMs = 0
        let grant: Grant
        do throws(ServiceError) { grant = try self.grant(request.grant, context) } catch {
            return answer(.failure(error))
        }
        let home = homeShard(of: context.account)
        idempotent(
            .deleteGrant,
            key: request.idempotencyKey,
            parameters: parameters,
            on: home,
            reclaims: true,
            context,
            answer
        ) {
            (transaction) throws(ServiceError) in
            let wasGiven = try storeCall { () throws(StoreError) in try transaction.withdraw(grant) }
            guard wasGiven else { throw ServiceError(.failedPrecondition, "there is no such grant") }
            return Wire.DeleteGrantResponse()
        }
    }

    /// Withdraws the grants for those of the resources that are gone.
    func withdrawGrants(for resources: [GrantResource], of account: AccountID) {
        workers.run(for: account) {
            for resource in resources {
                do throws(StoreError) {
                    if try !self.isLeft(resource) { self.withdrawAll(for: resource, of: account) }
                } catch { self.logGrants(error) }
            }
        }
    }

    private func logGrants(_ error: StoreError) {
        // The next start finds those that stay.
        guard error.code != .closed, error.code != .fenced else { return }
        logger.error("grants for what is gone were not withdrawn", metadata: ["reason": "\(error)"])
    }

    /// Whether anything is left that the grant is for: of a volume a snapshot is enough.
    private func isLeft(_ resource: GrantResource) throws(StoreError) -> Bool {
        switch resource {
        case .account: return true
        case .volume(let id): return try shard(of: id.uuid)?.makeView().isLeft(id) ?? false
        case .snapshot(let id): return try shard(of: id.uuid)?.makeView().snapshot(id) != nil
        }
    }

    /// Grants looked at, or withdrawn, at a time.
    private static let grantStep = 256

    private func withdrawAll(for resource: GrantResource, of account: AccountID) {
        let home = homeShard(of: account)
        workers.run(for: account) {
            do throws(StoreError) {
                let grants = try home.makeView().grants(by: account, for: resource, limit: Self.grantStep)
                self.withdraw(grants, on: home, for: account) {
                    if grants.count == Self.grantStep { self.withdrawAll(for: resource, of: account) }
                }
            } catch { self.logGrants(error) }
        }
    }

    private func withdraw(
        _ grants: [Grant],
        on home: Shard,
        for account: AccountID?,
        then next: @escaping @Sendable () -> Void
    ) {
        guard !grants.isEmpty else { return next() }
        home.submit(for: account, entries: grants.count * 2, reclaims: true) { (transaction) throws(StoreError) in
            for grant in grants { _ = try transaction.withdraw(grant) }
        } completion: { result in
            if case .failure(let error) = result { return self.logGrants(error) }
            next()
        }
    }

    /// After a start: a crash may have come between a deletion and the withdrawal of its grants.
    func sweepGrants() { for shard in store.shards { sweepGrants(on: shard, after: nil) } }

    private func sweepGrants(on shard: Shard, after: [UInt8]?) {
        workers.run {
            do throws(StoreError) {
                let found = try shard.makeView().grants(after: after, limit: Self.grantStep)
                var gone: [Grant] = []
                for (_, grant) in found where try !self.isLeft(grant.resource) { gone.append(grant) }
                self.withdraw(gone, on: shard, for: nil) {
                    if found.count == Self.grantStep { self.sweepGrants(on: shard, after: found.last?.key) }
                }
            } catch { self.logGrants(error) }
        }
    }

    public func listGrants(
        _ request: Wire.ListGrantsRequest,
        _ context: CallContext,
        answer: @escaping Answer<Wire.ListGrantsResponse>
    ) {
        onWorker(context, answer) { () throws(ServiceError) in
            let count = try request.page.itemCount()
            let call = PagedCall(request, of: context.account)
            let after = try GrantCursor.key(call)
            let shards = request.received ? self.store.shards : [self.homeShard(of: context.account)]
            var found: [(key: [UInt8], grant: Grant)] = []
            for shard in shards {
                found += try storeCall { () throws(StoreError) in
                    let view = shard.makeView()
                    return request.received
                        ? try view.grants(to: context.account, after: after, limit: count)
                        : try view.grants(by: context.account, after: after, limit: count)
                }
            }
            let page = found.sorted { $0.key.lexicographicallyPrecedes($1.key) }.prefix(count)
            var response = Wire.ListGrantsResponse()
            response.grants = page.map { Self.wire($0.grant) }
            if page.count == count, let last = page.last {
                response.nextPageToken = GrantCursor.token(last.key, in: call)
            }
            return response
        }
    }

    private func grant(_ grant: Wire.Grant?, _ context: CallContext) throws(ServiceError) -> Grant {
        guard let grant else { throw ServiceError(.invalidArgument, "no grant is given") }
        guard let grantee = AccountID(grant.grantee) else {
            throw ServiceError(.invalidArgument, "the grantee is no account's name")
        }
        guard grantee != context.account else {
            throw ServiceError(.invalidArgument, "an account needs no grant for what is its own")
        }
        let permission: GrantPermission
        switch grant.permission {
        case .use: permission = .use
        case .export: permission = .export
        default: throw ServiceError(.invalidArgument, "permission \(grant.permission.rawValue) is unknown")
        }
        var resource = GrantResource.account
        if grant.resource?.target != nil {
            switch try Named(grant.resource) {
            case .volume(let id): resource = .volume(id)
            case .snapshot(let id): resource = .snapshot(id)
            }
        }
        return Grant(
            grantor: context.account,
            resource: resource,
            permission: permission,
            grantee: grantee,
            createdAt: now
        )
    }

    /// C2's answer for what is not the caller's.
    private func checkOwned(_ resource: GrantResource, _ context: CallContext) throws(ServiceError) {
        switch resource {
        case .account: break
        case .volume(let id):
            let view = try shard(of: .volume(id)).makeView()
            _ = try volume(id, in: view, context)
        case .snapshot(let id):
            let view = try shard(of: .snapshot(id)).makeView()
            _ = try snapshot(id, in: view, context)
        }
    }

    private static func wire(_ grant: Grant) -> Wire.Grant {
        var wire = Wire.Grant()
        switch grant.resource {
        case .account: break
        case .volume(let id): wire.resource = Wire.Target(target: .volumeID(id.bytes))
        case .snapshot(let id): wire.resource = Wire.Target(target: .snapshotID(id.bytes))
        }
        wire.grantee = grant.grantee.name
        wire.grantor = grant.grantor.name
        wire.permission = grant.permission == .use ? .use : .export
        wire.createdAtMs = grant.createdAt
        return wire
    }
}

/// Where ListGrants goes on: the rest of the last key.
enum GrantCursor {
    private static let version: UInt8 = 3

    static func token(_ key: [UInt8], in call: PagedCall) -> [UInt8] {
        call.seal(version: version) { $0.put(bytes: key) }
    }

    /// Nil for the first page.
    static func key(_ call: PagedCall) throws(ServiceError) -> [UInt8]? {
        try call.open(version: version) { reader in
            reader.isAtEnd ? nil : reader.take(bytes: reader.remaining)
        }
    }
}
