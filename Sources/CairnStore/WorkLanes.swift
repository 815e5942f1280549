import CairnCore
import DequeModule

/// What waits in the index's table of work, in lanes that take turns (SPEC R3): one for each account, whose items keep their order,
/// for those of a lineage build on each other. What is at the head of a lane may be done a step at a time.
///
/// In memory are a few numbers of each lane; where it has more they are read when it runs empty. So memory is bounded by how many
/// accounts there are. Nothing here is durable: after a restart items begin anew, as their steps allow.
struct WorkLanes<Progress> {
    /// The item whose turn it is, and how far it has come.
    struct Turn {
        let number: UInt64
        let progress: Progress?
    }

    private struct Lane {
        var numbers = Deque<UInt64>()
        /// The first that is not in memory.
        var skipped: UInt64?
        var progress: Progress?

        mutating func add(_ number: UInt64, atMost limit: Int) {
            if numbers.count < limit { numbers.append(number) } else { skipped = number }
        }
    }

    /// Numbers of a lane in memory.
    private static var laneItems: Int { 64 }
    /// Keys looked at with one view.
    private static var scanStep: Int { 1024 }

    private let belongs: (WorkItem) -> Bool
    private let mostBegun: Int
    /// Nil: of no account, for what they are about is gone.
    private var lanes: [AccountID?: Lane] = [:]
    private var turns = Deque<AccountID?>()
    /// Items that have come somewhere.
    private var begun = 0
    /// The table was looked through up to this number.
    private var scanned: UInt64 = 0

    /// - Parameters:
    ///   - mostBegun: items that may be under way at a time, 1 at least: each has its progress in memory.
    ///   - belongs: which items these are.
    init(mostBegun: Int = .max, _ belongs: @escaping (WorkItem) -> Bool) {
        precondition(mostBegun > 0)
        (self.mostBegun, self.belongs) = (mostBegun, belongs)
    }

    var isEmpty: Bool { turns.isEmpty }

    /// Every item that is not done has this number, or a higher one; but for those that were left where they are.
    var first: UInt64 { lanes.values.reduce(scanned) { min($0, $1.numbers[0]) } }

    /// Forgets all that is in memory: the next look begins with what is left in the table.
    mutating func restart() { self = WorkLanes(mostBegun: mostBegun, belongs) }

    /// Takes in what has come since the last look.
    mutating func look(_ shard: Shard) throws(StoreError) {
        let start = scanned
        let end = try Self.scan(shard, from: start, belongs) { number, account in
            if lanes[account] == nil {
                lanes[account] = Lane()
                turns.append(account)
            }
            if lanes[account]!.skipped == nil { lanes[account]!.add(number, atMost: Self.laneItems) }
            return true
        }
        scanned = end
    }

    /// - Parameter body: false: enough.
    /// - Returns: where to go on.
    private static func scan(
        _ shard: Shard,
        from start: UInt64,
        _ belongs: (WorkItem) -> Bool,
        _ body: (UInt64, AccountID?) -> Bool
    ) throws(StoreError) -> UInt64 {
        var next = start
        while true {
            let view = shard.makeView()
            let cursor = view.index.makeCursor()
            cursor.seek(Key.work(next))
            var looked = 0
            while looked < scanStep, try cursor.isValid(), var key = KeyReader(cursor.key, .work),
                let number = key.take(UInt64.self)
            {
                let item = try WorkItem.decode(cursor.value)
                if belongs(item) {
                    let account = try item.account(view)
                    guard body(number, account) else { return number }
                }
                next = number + 1
                looked += 1
                cursor.next()
            }
            if looked < scanStep { return next }
        }
    }

    /// The next turn; to be followed by ``giveWay(_:)`` or ``finish(_:)``.
    mutating func next() -> Turn? {
        for _ in turns.indices {
            let account = turns[0]
            let lane = lanes[account]!
            if let progress = lane.progress {
                lanes[account]!.progress = nil
                begun -= 1
                return Turn(number: lane.numbers[0], progress: progress)
            }
            if begun < mostBegun { return Turn(number: lane.numbers[0], progress: nil) }
            turns.append(turns.removeFirst())
        }
        return nil
    }

    /// The item goes on when the others have had their turns.
    mutating func giveWay(_ progress: Progress) {
        let account = turns.removeFirst()
        lanes[account]!.progress = progress
        begun += 1
        turns.append(account)
    }

    /// The item is done, or is left where it is until the next ``restart()``.
    mutating func finish(_ shard: Shard) throws(StoreError) {
        let account = turns.removeFirst()
        var lane = lanes[account]!
        lane.numbers.removeFirst()
        if lane.numbers.isEmpty, let first = lane.skipped {
            lane.skipped = nil
            let end = scanned
            _ = try Self.scan(shard, from: first, belongs) { number, owner in
                guard number < end else { return false }
                if owner == account { lane.add(number, atMost: Self.laneItems) }
                return lane.skipped == nil
            }
        }
        lanes[account] = lane.numbers.isEmpty ? nil : lane
        if !lane.numbers.isEmpty { turns.append(account) }
    }
}

extension Shard {
    /// The most items of work that one question looks at: it is asked where calls are ordered.
    private static let freeingScan = 256

    /// Whether what an account has deleted, and is counted as the account's still, is on its way out. Behind some hundred items of work
    /// nothing is found.
    public func isFreeing(_ account: AccountID) throws(StoreError) -> Bool {
        let view = makeView()
        let cursor = view.index.makeCursor()
        // What is done lies before as deleted keys: they are not passed again.
        cursor.seek(Key.work(background.firstRelease.load(ordering: .relaxed)))
        for _ in 0..<Self.freeingScan {
            guard try cursor.isValid(), cursor.key.first == Table.work.rawValue else { return false }
            let item = try WorkItem.decode(cursor.value)
            if item.freed != nil, try item.account(view) == account { return true }
            cursor.next()
        }
        return false
    }
}

extension WorkItem {
    /// Whose work it is; nil where what it is about is gone, or damaged: that shows when it is carried out.
    fileprivate func account(_ view: ReadView) throws(StoreError) -> AccountID? {
        do throws(StoreError) {
            switch self {
            case .releaseVersion(let lineage, _), .trimHead(let lineage), .cancelVersion(let lineage, _),
                .settle(let lineage, _):
                return try view.index.get(Key.lineage(lineage)).map { bytes throws(StoreError) in
                    try LineageRecord.decode(bytes).owner
                }
            case .seal(let id), .forgetExpected(let id):
                return try view.index.get(Key.snapshot(id)).map { bytes throws(StoreError) in
                    try SnapshotRecord.decode(bytes).account
                }
            }
        } catch {
            guard error.code == .damaged else { throw error }
            return nil
        }
    }
}
