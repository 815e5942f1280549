internal import CairnCore
internal import CairnWire

/// Grants, usage and limits (SPEC D5, R2, R3).
extension Client {
    /// Lets another account use, or export, what this account owns (SPEC D5). Granting again what is granted does no harm.
    /// - Parameter key: the same key with the same parameters gives the first answer again (SPEC C5).
    @discardableResult
    public func createGrant(
        _ permission: Permission,
        on resource: GrantResource,
        to grantee: String,
        key: IdempotencyKey = IdempotencyKey()
    ) async throws(ClientError) -> Grant {
        let grant = Wire.Grant(resource: resource.wire, grantee: grantee, permission: permission.wire)
        let answer = try await caller.call(Wire.CreateGrantRequest(grant: grant, idempotencyKey: key.bytes)).0
        return try Grant(try Contract.require(answer.grant, "grant", in: "the answer to CreateGrant"))
    }

    /// Withdraws a grant: from the next call on it does not count.
    /// - Parameter key: as of ``createGrant(_:on:to:key:)``.
    public func deleteGrant(
        _ permission: Permission,
        on resource: GrantResource,
        to grantee: String,
        key: IdempotencyKey = IdempotencyKey()
    ) async throws(ClientError) {
        let grant = Wire.Grant(resource: resource.wire, grantee: grantee, permission: permission.wire)
        _ = try await caller.call(Wire.DeleteGrantRequest(grant: grant, idempotencyKey: key.bytes))
    }

    /// The grants that this account made, or those that others made to it.
    public func grants(received: Bool = false) -> Pages<Grant> {
        Pages { [self] (page: [UInt8]) async throws(ClientError) in
            let request = Wire.ListGrantsRequest(
                page: Wire.PageRequest(limit: UInt32(Limits.pageItems), pageToken: page),
                received: received
            )
            let answer = try await caller.call(request).0
            var items: [Grant] = []
            for grant in answer.grants { items.append(try Grant(grant)) }
            return (items, answer.nextPageToken)
        }
    }

    /// How much space things take (SPEC R2).
    /// - Parameters:
    ///   - targets: volumes and snapshots; none: the whole account.
    ///   - freed: also tell what deleting all of them together would free.
    ///   - affinity: also tell what this affinity key would have saved; empty: do not.
    ///   - limit: how long the server may count; nil: the client's call limit.
    public func usage(
        of targets: [BlockTarget] = [],
        freed: Bool = false,
        affinity: [UInt8] = [],
        limit: Duration? = nil
    ) async throws(ClientError) -> UsageReport {
        let request = Wire.GetUsageRequest(
            targets: targets.map(\.wire),
            freedByDeletion: freed,
            affinity: affinity
        )
        let answer = try await caller.call(request, limit: limit).0
        guard answer.each.count == targets.count else {
            throw ClientError(
                .protocolViolation,
                "GetUsage answered \(answer.each.count) usages for \(targets.count) targets"
            )
        }
        return UsageReport(
            total: Usage(answer.total ?? Wire.Usage()),
            each: answer.each.map { Usage($0) },
            freedBytes: freed ? answer.freedBytes : nil,
            affinitySavingsBytes: affinity.isEmpty ? nil : answer.affinitySavingsBytes
        )
    }

    /// An account's limits and usage.
    /// - Parameter account: nil: the caller's own. Another's: with an admin certificate only.
    public func describeAccount(_ account: String? = nil) async throws(ClientError) -> Account {
        Account(try await caller.call(Wire.DescribeAccountRequest(account: account ?? "")).0)
    }

    /// Sets all of an account's limits at once. An admin certificate only.
    /// - Parameter limits: nil: those of the server's configuration hold again.
    public func setLimits(_ limits: AccountLimits?, of account: String) async throws(ClientError) {
        _ = try await caller.call(Wire.SetAccountLimitsRequest(account: account, limits: limits?.wire))
    }

    /// The names of all accounts that have anything here. An admin certificate only.
    public func accounts() -> Pages<String> {
        Pages { [self] (page: [UInt8]) async throws(ClientError) in
            let request = Wire.ListAccountsRequest(
                page: Wire.PageRequest(limit: UInt32(Limits.pageItems), pageToken: page)
            )
            let answer = try await caller.call(request).0
            return (answer.accounts, answer.nextPageToken)
        }
    }
}
