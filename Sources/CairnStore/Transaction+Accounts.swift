public import CairnCore

extension Transaction {
    /// Gives the account limits of its own: on its home shard, which the caller chooses.
    public func setLimits(_ limits: AccountLimits, of account: AccountID) {
        overlay.put(Key.accountLimits(account), limits.encoded)
    }
}
