public import CairnCore
import Synchronization

/// Whether what the store does by itself may make an account's data larger: a whole chunk takes more than parts of it. Whoever knows the
/// accounts' limits sets it (SPEC R3); until then it may.
public final class GrowthRule: Sendable {
    private let rule = Mutex<@Sendable (AccountID, _ bytes: UInt64) -> Bool>({ _, _ in true })

    public init() {}

    /// - Parameter rule: called on a shard's background queue.
    public func set(_ rule: @escaping @Sendable (AccountID, _ bytes: UInt64) -> Bool) {
        self.rule.withLock { $0 = rule }
    }

    func allows(_ account: AccountID, _ bytes: UInt64) -> Bool { rule.withLock(\.self)(account, bytes) }
}
