import CairnCore
import CairnStore
import CairnWire

/// DescribeAccount, SetAccountLimits, ListAccounts (SPEC R2, R3). Who may call them is CairnServer's to say.
extension Service {
    /// The limits that hold for the account now: without I/O, from any thread.
    public func limits(of account: AccountID) -> AccountLimits { limitTable.limits(of: account) }

    /// What the context's account may have, and has. An account that never did anything has nothing.
    public func describeAccount(
        _ request: Wire.DescribeAccountRequest,
        _ context: CallContext,
        answer: @escaping Answer<Wire.DescribeAccountResponse>
    ) {
        onWorker(context, answer) { () throws(ServiceError) in
            let usage = try self.usage(of: context.account)
            var response = Wire.DescribeAccountResponse()
            response.account = context.account.name
            response.limits = self.limits(of: context.account).wire
            response.usage = Wire.Usage(
                logicalBytes: usage.logicalBytes,
                uniqueBytes: usage.uniqueBytes,
                storedBytes: usage.storedBytes
            )
            response.volumes = usage.volumes
            response.snapshots = usage.snapshots
            return response
        }
    }

    /// On all shards.
    func usage(of account: AccountID) throws(ServiceError) -> AccountUsage {
        var usage = AccountUsage()
        for shard in store.shards {
            usage += try storeCall { () throws(StoreError) in try shard.makeView().usage(of: account) }
        }
        return usage
    }

    /// Gives the context's account limits of its own, which hold from the answer on; without `limits`, the server's again.
    public func setAccountLimits(
        _ request: Wire.SetAccountLimitsRequest,
        _ context: CallContext,
        answer: @escaping Answer<Wire.SetAccountLimitsResponse>
    ) {
        let limits = request.limits.map(AccountLimits.init)
        guard limits == nil || limitTable.hasRoom(for: context.account) else {
            return answer(
                .failure(
                    ServiceError(
                        .failedPrecondition,
                        "\(AccountLimitTable.maximumCount) accounts have limits of their own: more than that this server does not keep"
                    )
                )
            )
        }
        let home = homeShard(of: context.account)
        home.submit { transaction in
            transaction.setLimits(limits, of: context.account)
        } completion: { result in
            answer(
                Result { () throws(ServiceError) in
                    try storeCall { () throws(StoreError) in
                        try result.get()
                        try self.limitTable.refresh(context.account, from: home)
                    }
                    return Wire.SetAccountLimitsResponse()
                }
            )
        }
    }

    /// Every account that has, or had, something on this server, or has limits of its own; by name.
    public func listAccounts(
        _ request: Wire.ListAccountsRequest,
        answer: @escaping Answer<Wire.ListAccountsResponse>
    ) {
        workers.run {
            answer(
                Result { () throws(ServiceError) in
                    let count = try request.page.itemCount()
                    let call = PagedCall(request, of: nil)
                    let after = try AccountCursor.account(call)
                    var found: Set<AccountID> = []
                    for shard in self.store.shards {
                        found.formUnion(
                            try storeCall { () throws(StoreError) in
                                try shard.makeView().accounts(after: after, limit: count)
                            }
                        )
                    }
                    let page = found.sorted().prefix(count)
                    var response = Wire.ListAccountsResponse()
                    response.accounts = page.map(\.name)
                    if page.count == count, let last = page.last {
                        response.nextPageToken = AccountCursor.token(last, in: call)
                    }
                    return response
                }
            )
        }
    }
}

extension AccountLimits {
    init(_ wire: Wire.AccountLimits) {
        self.init()
        (volumes, snapshots) = (wire.volumes, wire.snapshots)
        (logicalBytes, storedBytes) = (wire.logicalBytes, wire.storedBytes)
        (requestsPerSecond, bytesInFlight) = (wire.requestsPerSecond, wire.bytesInFlight)
    }

    var wire: Wire.AccountLimits {
        Wire.AccountLimits(
            volumes: volumes,
            snapshots: snapshots,
            logicalBytes: logicalBytes,
            storedBytes: storedBytes,
            requestsPerSecond: requestsPerSecond,
            bytesInFlight: bytesInFlight
        )
    }
}

/// Where ListAccounts goes on: the last name that was given.
enum AccountCursor {
    private static let version: UInt8 = 3

    static func token(_ account: AccountID, in call: PagedCall) -> [UInt8] {
        call.seal(version: version) { $0.put(account.name) }
    }

    /// Nil for the first page.
    static func account(_ call: PagedCall) throws(ServiceError) -> AccountID? {
        try call.open(version: version) { $0.takeText().flatMap { AccountID($0) } }
    }
}
