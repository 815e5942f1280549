import CairnCore

/// What accounts have, counted again (SPEC R2, R3).
extension Audit {
    /// After the manifests and the dictionary, whose parts and chunks are counted on the way.
    mutating func usage() throws(StoreError) {
        var counted = counted
        let view = view
        try walk(.volumes) { (_, value) throws(StoreError) in
            let volume = try VolumeRecord.decode(value)
            guard let number = try view.accountNumber(volume.account) else { return }
            counted[number, default: AccountUsage()].volumes += 1
            counted[number, default: AccountUsage()].logicalBytes += volume.size
        }
        try walk(.snapshots) { (_, value) throws(StoreError) in
            let snapshot = try SnapshotRecord.decode(value)
            guard !snapshot.isInitial, let number = try view.accountNumber(snapshot.account) else { return }
            counted[number, default: AccountUsage()].snapshots += 1
        }
        var problems: [String] = []
        try walk(.usage) { (key, value) throws(StoreError) in
            guard let number = key.take(UInt32.self).map({ AccountNumber(rawValue: $0) }) else { return }
            let usage = try AccountUsage.decode(value)
            let found = counted.removeValue(forKey: number) ?? AccountUsage()
            if usage != found {
                problems.append("account \(number.rawValue) is said to have \(usage); it has \(found)")
            }
        }
        for (number, usage) in counted where usage != AccountUsage() {
            problems.append("account \(number.rawValue) has \(usage), and is said to have nothing")
        }
        for problem in problems { report.note(problem) }
    }
}
