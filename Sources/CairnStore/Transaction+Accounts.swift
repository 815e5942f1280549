public import CairnCore

extension Transaction {
    /// Gives the account limits of its own, or, nil, takes them away: on its home shard, which the caller chooses.
    public func setLimits(_ limits: AccountLimits?, of account: AccountID) {
        let key = Key.accountLimits(account)
        if let limits { overlay.put(key, limits.encoded) } else { overlay.delete(key) }
    }
}
