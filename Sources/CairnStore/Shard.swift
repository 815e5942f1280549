public import CairnCore
import CairnCrypto
import CairnLog
import Logging
import Synchronization

/// When a change is answered (SPEC U8).
public enum CommitDurability: Sendable {
    /// Written and synced.
    case durable
    /// Written and visible; synced with the next durable change, or by ``Shard/flush(_:)``.
    case onFlush
}

/// One shard: its log, index and dictionary, owned by one serial queue.
///
/// ```
/// any thread     submit, flush, makeView, read, pin
/// queue          builds one group at a time out of the calls that wait
/// I/O queue      writes and syncs it, then applies it to the index, and answers its calls
/// background     purges, releases, merges, seals, checkpoints: each by transactions of its own
/// ```
/// While a group is being written the next calls gather: they are the next group. So a group is always built on what is
/// applied and its own changes, and there is no third state in between.
// Safety: `pending`, `company`, `standstill`, `expiredKeys`, `isWriting`, `isClosed` are only touched on `queue`; the rest is constant or synchronized.
public final class Shard: @unchecked Sendable {
    public let index: ShardIndex
    /// Changes with every recovery: what was answered before it and not flushed may be lost (SPEC U8).
    public let verifier: UInt64
    let log: SegmentLog
    let database: IndexDatabase
    let options: StoreOptions
    let leases: Leases
    let checkpoints: CheckpointMaker
    let logger: Logger
    let queue: any SerialQueue
    let io: any SerialQueue
    private(set) var background: Background!
    /// Finds damage, and remembers what is found.
    public private(set) var scrubber: Scrubber!
    let damage = DamageState()
    let hints: RecordHints
    let arrivals = Arrivals()

    /// What waits for a group, account by account; the background's own calls take turns with them (SPEC R3).
    private var pending = FairQueue<AccountID?, PendingCall>(quantum: 256 << 10)
    var company = Company()
    private var standstill = Standstill()
    let expiredKeys = ExpiredKeys()
    private var isWriting = false
    private var isClosed = false
    private let fence = Mutex<String?>(nil)
    /// Called once, when the shard fences itself: it should be closed then, and opened anew.
    private let fenced: @Sendable () -> Void
    private let waiting = Atomic<Int>(0)
    /// What has been applied since the index was last flushed.
    let unflushed = Mutex(Unflushed())
    /// Whether the disk has little room for the index.
    let isShort = Atomic(false)

    struct Unflushed {
        var position: LogPosition?
        var indexBytes = 0
        var logBytes = 0
        /// Since the shard was made, what is flushed included.
        var totalLogBytes: UInt64 = 0
        /// While a flush runs, every group is synced before it is applied: the index must not run ahead of the log.
        var isFlushing = false
        /// The same from RocksDB's first failure on: it may flush at any time.
        var isSuspect = false
    }

    /// Groups take calls up to this much: more gains nothing, and makes the first of them wait.
    static let groupBytes = 8 << 20
    /// While several accounts are at work: a call that comes in between waits for no more than two of these (SPEC R3).
    static let sharedGroupBytes = 1 << 20
    static let groupCommitBytes = 4 << 20

    init(
        index: ShardIndex,
        storeID: UUID128,
        log: SegmentLog,
        database: IndexDatabase,
        applied: (position: LogPosition?, logBytes: UInt64),
        checkpoints: CheckpointMaker,
        options: StoreOptions,
        fenced: @escaping @Sendable () -> Void = {}
    ) {
        self.fenced = fenced
        self.index = index
        self.log = log
        self.database = database
        hints = RecordHints(log, database)
        self.options = options
        var logger = options.logger
        logger[metadataKey: "shard"] = "\(index)"
        self.logger = logger
        leases = Leases(time: options.leaseTime, options.execution)
        queue = options.execution.makeQueue("cairn.shard.\(index)", isBackground: false)
        io = options.execution.makeQueue("cairn.shard.\(index).io", isBackground: false)
        var writer = ByteWriter()
        writer.put(bytes: storeID.bytes)
        writer.put(index.rawValue)
        writer.put(log.epoch.rawValue)
        verifier = writer.bytes.withUnsafeBytes { SHA256.hash($0).words.0 }
        self.checkpoints = checkpoints
        unflushed.withLock { ($0.position, $0.totalLogBytes) = applied }
        if database.mayHaveDamage { damage.setPossible() }
        background = Background(self)
        scrubber = Scrubber(self)
    }

    /// Calls that wait for a group.
    public var waitingCalls: Int { waiting.load(ordering: .relaxed) }

    /// Why the shard takes no changes any more; nil while it does.
    public var fenceReason: String? { fence.withLock { $0 } }

    // MARK: Changes

    /// Carries `body` out as a part of the next group, and completes when that is durable and visible (or only visible: `.onFlush`).
    ///
    /// `body` runs on the shard's queue: it must not block, hash, or read the disk. If it throws, or calls
    /// ``Transaction/abort()``, what it changed is undone, and no other call is touched. It may run twice, the first time
    /// undone: where its changes turn out too large for what is left of a group, it begins the next one. Too large for a group
    /// of its own: `.invalid`.
    ///
    /// While groups are full, accounts take turns; the calls of one account are carried out in their order.
    /// - Parameters:
    ///   - account: on whose behalf; nil for the server's own work.
    ///   - records: chunk and patch records that `body` may append.
    ///   - bytes: their bytes in all.
    ///   - entries: manifest entries that it may change: an estimate of its part of the commit record.
    ///   - reclaims: whether it frees space, so that it is let in when the store is full.
    ///   - completion: called once, on any thread; must not block.
    public func submit<Value: Sendable>(
        for account: AccountID? = nil,
        durability: CommitDurability = .durable,
        records: Int = 0,
        bytes: Int = 0,
        entries: Int = 8,
        reclaims: Bool = false,
        _ body: @escaping @Sendable (Transaction) throws(StoreError) -> Value,
        completion: @escaping @Sendable (Result<Value, StoreError>) -> Void
    ) {
        let call = PendingCall(
            durability: durability,
            records: records,
            bytes: bytes,
            entries: entries,
            reclaims: reclaims,
            body,
            completion: completion
        )
        queue.async {
            if let account { self.company.came(account, at: self.options.execution.uptime) }
            // What it costs the others: the log's bytes, and the time of the queue, in the measure of the commit record.
            self.pending.append(call, of: account, cost: call.bytes + call.commitBytes)
            self.pump()
        }
    }

    /// ``submit(for:durability:records:bytes:entries:reclaims:_:completion:)`` of the server's own work, durable and waited for. Not
    /// on a queue of the shard that writes groups.
    /// - Parameter ended: called where it was carried out, or tried, before a later one is answered.
    func perform<Value: Sendable>(
        records: Int = 0,
        bytes: Int = 0,
        entries: Int,
        reclaims: Bool = false,
        _ body: @escaping @Sendable (Transaction) throws(StoreError) -> Value,
        ended: @escaping @Sendable () -> Void = {}
    ) throws(StoreError) -> Value {
        try waited { done in
            submit(records: records, bytes: bytes, entries: entries, reclaims: reclaims, body) { result in
                ended()
                done(result)
            }
        }
    }

    /// What `begin` completes with. Not on a queue that the completion takes.
    func waited<Value: Sendable>(
        _ begin: (_ completion: @escaping @Sendable (Result<Value, StoreError>) -> Void) -> Void
    ) throws(StoreError) -> Value {
        let done = options.execution.makeSignal()
        let outcome = Mutex<Result<Value, StoreError>?>(nil)
        begin { result in
            outcome.withLock { $0 = result }
            done.give()
        }
        try done.wait()
        return try outcome.withLock { $0! }.get()
    }

    /// Makes everything durable that was answered before.
    public func flush(_ completion: @escaping @Sendable (Result<Void, StoreError>) -> Void) {
        io.async {
            let result = Result { () throws(StoreError) in try logCall { () throws(LogError) in try self.log.sync() } }
            if case .failure(let error) = result { self.fence(error) }
            completion(result.mapError { _ in self.fencedError })
        }
    }

    /// Builds and writes the next group, if calls wait and none is being written.
    private func pump() {
        queue.checkIsCurrent()
        defer { waiting.store(pending.count, ordering: .relaxed) }
        guard !isWriting else { return }
        for reached in standstill.takeReached() { reached() }
        guard let next = nextCall else { return }
        if let refusal {
            for call in standstill.front + pending.removeAll() { call.refuse(refusal) }
            standstill.front = []
            return
        }
        if let refusal = overdueRefusal(of: next) {
            removeNextCall()
            next.refuse(refusal)
            return queue.async { self.pump() }
        }
        if standstill.isHeld { return }
        let building: GroupBuilding
        do throws(StoreError) {
            building = try GroupBuilding(first: next, self)
        } catch {
            // Only the call that the group was made for is known not to fit.
            removeNextCall()
            if error.code == .fenced { fence(error) }
            next.refuse(error)
            return queue.async { self.pump() }
        }
        let isShared = company.isShared(at: options.execution.uptime)
        let most = isShared ? Self.sharedGroupBytes : Self.groupBytes
        while let call = nextCall, building.takes(call, upTo: most), building.add(call) { removeNextCall() }
        if building.changesSomething {
            isWriting = true
            io.async { self.write(building) }
        } else if building.isDurable, hasUnsynced {
            // What a durable call found done already may be the work of one that did not wait for the disk.
            isWriting = true
            io.async { self.syncOnly(building) }
        } else {
            building.complete(nil)
            background.wake(newWork: building.hasNewWork, isFull: false)
            queue.async { self.pump() }
        }
    }

    private var nextCall: PendingCall? { standstill.front.first ?? pending.first() }

    private func removeNextCall() {
        if standstill.front.popFirst() == nil { _ = pending.popFirst() }
    }

    /// Begins no group any more until ``goOn(with:)``, which must follow soon.
    /// - Parameter reached: called on the shard's queue when the group that was on its way is finished.
    func standStill(_ reached: @escaping @Sendable () -> Void) {
        queue.async {
            self.standstill.hold(reached)
            self.pump()
        }
    }

    /// Begins groups again, unless others hold the shard too, with `call` in front of all that wait.
    func goOn(with call: PendingCall) {
        queue.async {
            self.standstill.release(call)
            self.pump()
        }
    }

    /// Whether something applied is not synced yet.
    private var hasUnsynced: Bool { log.position.map { log.durable < $0.lsn } ?? false }

    /// Why a call is not taken while too much waits to be flushed, and the disk has no room for that: RocksDB is about to do it by
    /// itself, or a start after a crash would have too much of the log to read. What frees space adds little to that: it goes on.
    private func overdueRefusal(of call: PendingCall) -> StoreError? {
        let isFreeing = call.reclaims && call.bytes == 0
        let isOverdue = unflushed.withLock {
            $0.indexBytes >= 2 * options.indexFlushBytes || !isFreeing && $0.logBytes / 2 >= options.checkpointBytes
        }
        guard isOverdue else { return nil }
        do throws(StoreError) { try database.checkRoom() } catch {
            if error.code == .full { return StoreError(.full, "the disk has no room for the index") }
        }
        return nil
    }

    private var refusal: StoreError? {
        if fenceReason != nil { return fencedError }
        return isClosed ? StoreError(.closed, "the store is closed") : nil
    }

    /// What calls are told whose group failed, or comes too late: what was written of it is known when the shard is recovered.
    private var fencedError: StoreError {
        StoreError(.fenced, "shard \(index) recovers from a failure: \(fenceReason ?? "it is closed")")
    }

    private func write(_ building: GroupBuilding) {
        io.checkIsCurrent()
        var failure: StoreError?
        do throws(StoreError) {
            // Near the size at which RocksDB may flush by itself, nothing is applied that is not synced either.
            let mustSync = unflushed.withLock {
                $0.isFlushing || $0.isSuspect || $0.indexBytes >= options.indexFlushBytes
            }
            let before = unflushed.withLock { $0.totalLogBytes }
            try building.write(sync: building.isDurable || mustSync, to: log, database, after: before)
            arrivals.noteApplied()
            let position = building.position
            unflushed.withLock {
                $0.position = position
                $0.indexBytes += building.commitBytes
                $0.logBytes += building.logBytes
                $0.totalLogBytes += UInt64(building.logBytes)
            }
        } catch {
            failure = error
            if error.code != .full {
                fence(error)
                failure = fencedError
            }
        }
        building.complete(failure)
        if failure == nil { background.merge(soon: building.mergeable) }
        // Where what frees space has no room itself, the background looks again at its next round, a second later: woken at once it
        // would try the same without end.
        background.wake(
            newWork: failure == nil && building.hasNewWork,
            isFull: failure?.code == .full && building.purpose == .normal
        )
        goOn()
    }

    private func syncOnly(_ building: GroupBuilding) {
        io.checkIsCurrent()
        var failure: StoreError?
        do throws(StoreError) {
            try logCall { () throws(LogError) in try log.sync() }
        } catch {
            fence(error)
            failure = fencedError
        }
        building.complete(failure)
        goOn()
    }

    private func goOn() {
        queue.async {
            self.isWriting = false
            self.pump()
        }
    }

    /// After a failed write what is on the disk is not known: nothing is written any more, and nothing retried (TESTING.md). What is
    /// known to be there is seen again when the shard is opened anew from its log.
    func fence(_ error: StoreError) {
        log.stop()
        let isNew = fence.withLock { reason in
            defer { reason = reason ?? error.text }
            return reason == nil
        }
        guard isNew else { return }
        logger.critical("the shard takes no changes any more", metadata: ["reason": "\(error)"])
        fenced()
    }

    /// Ends the calls that wait, finishes the group that is being written, and makes the index durable; of a fenced shard nothing.
    func close() {
        let done = options.execution.makeSignal()
        queue.async {
            self.isClosed = true
            self.pump()
            self.io.async { done.give() }
        }
        do throws(StoreError) {
            try done.wait()
            background.stop()
            try io.sync { () throws(StoreError) in
                guard fenceReason == nil else { return }
                try logCall { () throws(LogError) in try log.sync() }
                // Without room the next start replays what is not flushed.
                do throws(StoreError) {
                    try database.checkRoom()
                    try database.flush()
                } catch { guard error.code == .full else { throw error } }
                try logCall { () throws(LogError) in try log.close() }
            }
        } catch { logger.error("the shard was not closed in order", metadata: ["reason": "\(error)"]) }
    }

    // MARK: Reading

    /// The index as it is now: what was answered is in it (SPEC C6).
    /// - Parameter inMemory: for who must not wait for the disk: what would have to be read from it is refused, `.notInMemory`.
    public func makeView(inMemory: Bool = false) -> ReadView {
        let view = database.makeView(inMemory: inMemory)
        // Asked after the view was made: a mark that it shows is then not passed over.
        return ReadView(view, mayHaveDamage: damage.isPossible, isInMemory: inMemory)
    }

    /// The index for one look-up, on a thread that must not wait for the disk: what would have to be read from it is refused,
    /// `.notInMemory`. What was answered is in it as well.
    public func makePeek() -> ManifestReader {
        ManifestReader(IndexPeek(database), mayHaveDamage: true, isInMemory: true)
    }

    /// A volume as the index has it now, if it was looked at lately: at a tenth of what a peek costs.
    public func volumeAtHand(_ id: VolumeID) -> VolumeRecord? { database.volumeAtHand(id) }

    /// After a failed read: once the shard has been opened anew, another log may write over what the index of this one names.
    func checkOpen() throws(StoreError) { if database.isClosed { throw fencedError } }

    // MARK: Leases

    /// Promises for a lease that chunks of the account that are here stay here, so that they need not be sent (SPEC A1).
    /// - Returns: which of them are here.
    public func pin(account: AccountID, _ fingerprints: [Fingerprint]) throws(StoreError) -> [Bool] {
        let view = makeView()
        guard let number = try view.accountNumber(account) else { return fingerprints.map { _ in false } }
        let chunks = fingerprints.map { ChunkKey(own: number, $0) }
        // Pinned first, then looked up in a newer view: a chunk that is seen there and is not being purged stays.
        let (leaving, end) = leases.pin(chunks)
        let present = makeView()
        var answers: [Bool] = []
        answers.reserveCapacity(chunks.count)
        var absent: [ChunkKey] = []
        for chunk in chunks {
            // One that is damaged must be sent again: that heals it.
            let isHere = try present.soundChunk(chunk) != nil
            if !isHere { absent.append(chunk) }
            answers.append(isHere && !leaving.contains(chunk))
        }
        // Nobody can have been promised what is not there: an import of new data leaves no pins behind.
        leases.unpin(absent, end: end)
        return answers
    }
}

/// A call that waits for its group.
struct PendingCall: Sendable {
    /// How the call ends: with its own result, or with what befell its group.
    typealias Ending = @Sendable (StoreError?) -> Void

    let isDurable: Bool
    let records: Int
    let bytes: Int
    let commitBytes: Int
    let reclaims: Bool
    let run: @Sendable (Transaction) -> Ending
    let refuse: @Sendable (StoreError) -> Void

    /// As ``Shard/submit(for:durability:records:bytes:entries:reclaims:_:completion:)`` has it.
    init<Value: Sendable>(
        durability: CommitDurability = .durable,
        records: Int = 0,
        bytes: Int = 0,
        entries: Int,
        reclaims: Bool = false,
        _ body: @escaping @Sendable (Transaction) throws(StoreError) -> Value,
        completion: @escaping @Sendable (Result<Value, StoreError>) -> Void
    ) {
        isDurable = durability == .durable
        self.records = records
        self.bytes = bytes
        commitBytes = 4096 + entries * 384
        self.reclaims = reclaims
        run = { transaction in
            let result = Result { () throws(StoreError) in
                let value = try body(transaction)
                if !transaction.isAborted { try transaction.endCall() }
                return value
            }
            if case .failure = result { transaction.abort() }
            return { failure in completion(failure.map { .failure($0) } ?? result) }
        }
        refuse = { completion(.failure($0)) }
    }
}
