internal import CairnCore
internal import CairnWire

/// Damage, and the search for it (SPEC D4).
extension Client {
    /// The damaged chunks of a volume or snapshot of this account.
    /// - Parameter target: nil: of all that the account has.
    public func damage(of target: BlockTarget? = nil) -> Pages<DamagedBlock> {
        Pages { [self] (page: [UInt8]) async throws(ClientError) in
            let request = Wire.ListDamageRequest(
                target: target?.wire,
                page: Wire.PageRequest(limit: UInt32(Limits.pageItems), pageToken: page)
            )
            let answer = try await caller.call(request).0
            var items: [DamagedBlock] = []
            for block in answer.blocks { items.append(try DamagedBlock(block)) }
            return (items, answer.nextPageToken)
        }
    }

    /// Has the server read and check all of its data, beginning now. An admin certificate only.
    /// - Parameter bytesPerSecond: the most that each shard reads; 0: as fast as it can.
    public func startScrub(bytesPerSecond: UInt64 = 0) async throws(ClientError) {
        _ = try await caller.call(Wire.StartScrubRequest(bytesPerSecond: bytesPerSecond))
    }

    /// How the scrub stands, and how much is damaged. An admin certificate only.
    public func scrub() async throws(ClientError) -> ScrubReport {
        ScrubReport(try await caller.call(Wire.GetScrubRequest()).0)
    }
}
