import CairnCore
import CairnCrypto
import CairnTesting
import Foundation

@testable import CairnStore

/// Random operations on LOCAL volumes and their snapshots in progress, on what is cloned from these, and the reference.
struct ProgressModelRun {
    final class Volume {
        let id: VolumeID
        let kind: VolumeKind
        /// Of a REMOTE volume what it holds; of a LOCAL one the last completed snapshot's.
        var head: ModelLayer
        var sectors: Int
        var outstanding: [Snapshot] = []
        /// Of snapshots that were cancelled: clones of them show it still.
        var cancelled: [ModelLayer] = []
        let initial: SnapshotID

        init(_ record: VolumeRecord, _ head: ModelLayer) {
            (id, kind, initial, self.head, sectors) = (record.id, record.kind, record.initialSnapshot, head, head.count)
        }
    }
    final class Snapshot {
        let id: SnapshotID
        let volume: Volume
        let layer: ModelLayer
        var isError = false
        var needsRebase = false
        var isInitial = false
        var expected: [Int: Fingerprint] = [:]

        init(_ id: SnapshotID, _ volume: Volume, _ layer: ModelLayer) {
            (self.id, self.volume, self.layer) = (id, volume, layer)
        }
        var state: SnapshotState {
            if isError { return .error }
            return layer.isPending ? .pending : layer.isSettled ? .complete : .waiting
        }
    }

    let store: ModelStore
    var random: SeededRandom
    let chunkSize: ChunkSize
    /// In the order of their making, so that a seed chooses the same.
    var volumes: [Volume] = []
    var snapshots: [Snapshot] = []
    var nextStamp: UInt32 = 1
    var last = ""
    let mix: ModelMix
    /// How large volumes are, in 4 KiB.
    let sizes: Range<Int>
    private var operations = 0

    init(
        store: ModelStore,
        random: SeededRandom,
        chunkSize: ChunkSize,
        mix: ModelMix,
        sizes: Range<Int> = 8..<68
    ) {
        (self.store, self.random, self.chunkSize, self.mix, self.sizes) = (store, random, chunkSize, mix, sizes)
    }

    var local: [Volume] { volumes.filter { $0.kind == .local } }
    var remote: [Volume] { volumes.filter { $0.kind == .remote } }

    mutating func step() throws {
        operations += 1
        switch local.isEmpty ? .createLocal : mix.pick(&random) {
        case .createLocal: if volumes.count < 14 { try createVolume(.local, from: nil) }
        case .clone:
            if volumes.count < 14, let source = pick(snapshots.filter { !$0.isError }) {
                try createVolume(random.chance(30) ? .local : .remote, from: source)
            }
        case .createPending: if let volume = pick(local), volume.outstanding.count < 6 { try createPending(of: volume) }
        case .upload: if let snapshot = pick(local.compactMap(\.outstanding.first)) { try upload(to: snapshot) }
        case .write: if let volume = pick(remote) { try write(to: volume) }
        case .complete: if let snapshot = pick(local.compactMap(\.outstanding.first)) { try complete(snapshot) }
        case .cancel: if let snapshot = pick(snapshots.filter(\.layer.isPending)) { try cancel(snapshot) }
        case .createSnapshot: if let volume = pick(remote), snapshots.count < 50 { try createSnapshot(of: volume) }
        case .deleteSnapshot: if let snapshot = pick(snapshots) { try delete(snapshot) }
        case .deleteVolume: if let volume = pick(volumes) { try delete(volume) }
        case .grow: if let volume = pick(volumes) { try grow(volume) }
        case .leases: try changeLeases()
        case .read: try readSomething()
        case .settle: try settleAndAudit()
        case .reopen: try reopen(crashing: false)
        case .crash: try reopen(crashing: true)
        }
        // It walks through everything: rarely, and after every crash and settling.
        if operations.isMultiple(of: 40) { try audit() }
        try readSomething()
        if random.chance(30) { try compareSomething() }
    }

    mutating func pick<Value>(_ values: [Value]) -> Value? { values.isEmpty ? nil : values[random.below(values.count)] }

    // MARK: Volumes

    private mutating func createVolume(_ kind: VolumeKind, from source: Snapshot?) throws {
        last = "create a \(kind) volume from \(source.map { "\($0.state)" } ?? "nothing")"
        var sectors = source?.layer.count ?? 8 * (sizes.lowerBound + random.below(sizes.count))
        // Sometimes no multiple of the chunk size, sometimes larger than the source.
        if source == nil || random.chance(30) { sectors += random.below(40) }
        let (size, chunkSize, id) = (UInt64(sectors) * 512, chunkSize, source?.id)
        let record = try store.change { (transaction) throws(StoreError) in
            try transaction.createVolume(
                account: ModelRun.account,
                kind: kind,
                size: size,
                chunkSize: chunkSize,
                source: try id.flatMap { id throws(StoreError) in try transaction.snapshot(id) },
                affinity: [],
                tags: [:]
            )
        }
        let layer = ModelLayer(sectors: sectors, over: source?.layer, chunkSize)
        let volume = Volume(record, layer)
        let initial = Snapshot(record.initialSnapshot, volume, layer)
        if kind == .remote { volume.head = layer.copy() }
        initial.isInitial = true
        volumes.append(volume)
        snapshots.append(initial)
    }

    private mutating func grow(_ volume: Volume) throws {
        last = "resize"
        let more = 1 + random.below(sizes.lowerBound * 4)
        volume.sectors += more
        if volume.kind == .remote { volume.head.grow(by: more) }
        let (id, size) = (volume.id, UInt64(volume.sectors) * 512)
        try store.change { (transaction) throws(StoreError) in
            try transaction.resizeVolume(try transaction.volume(id)!, to: size)
        }
    }

    private mutating func delete(_ volume: Volume) throws {
        last = "delete a \(volume.kind) volume"
        let id = volume.id
        try store.change(reclaims: true) { (transaction) throws(StoreError) in
            try transaction.deleteVolume(try transaction.volume(id)!)
        }
        snapshots.removeAll { $0.volume === volume && !$0.isInitial && ($0.state == .pending || $0.state == .waiting) }
        for snapshot in volume.outstanding.reversed() { drop(snapshot) }
        volumes.removeAll { $0 === volume }
        guard let initial = snapshots.first(where: { $0.id == volume.initial }) else { return }
        // It stays where something was cloned from it, and is then like any other.
        initial.isInitial = false
        if try store.shard.makeView().snapshot(initial.id) == nil { snapshots.removeAll { $0 === initial } }
    }

    // MARK: Snapshots

    private mutating func createSnapshot(of volume: Volume) throws {
        last = "create a snapshot"
        let id = volume.id
        let record = try store.change { (transaction) throws(StoreError) in
            try transaction.createSnapshot(of: try transaction.volume(id)!, description: "d", tags: [:])
        }
        snapshots.append(Snapshot(record.id, volume, volume.head.copy()))
    }

    /// One of a LOCAL volume: perhaps with chunks that are there already, in one transaction or several, perhaps with some that
    /// are to come.
    private mutating func createPending(of volume: Volume) throws {
        let id = volume.id
        let isHidden = random.chance(20)
        last = "create a snapshot in progress, hidden \(isHidden)"
        var record = try store.change { (transaction) throws(StoreError) in
            try transaction.createSnapshot(
                of: try transaction.volume(id)!,
                description: "",
                tags: [:],
                hidden: isHidden
            )
        }
        let below = volume.outstanding.last?.layer ?? volume.head
        let snapshot = Snapshot(record.id, volume, ModelLayer(sectors: volume.sectors, over: below, chunkSize))
        snapshot.layer.isPending = true
        if random.chance(50) {
            let pieces = placements(in: snapshot.layer)
            for half in [pieces.prefix(pieces.count / 2), pieces.suffix(from: pieces.count / 2)] {
                let chunks = half.compactMap(\.placement)
                let snapshot = record
                try store.change(records: chunks.count, bytes: half.reduce(0) { $0 + $1.bytes }) {
                    (transaction) throws(StoreError) in
                    try transaction.place(chunks, in: snapshot)
                }
            }
        }
        if isHidden {
            if random.chance(20) {
                try store.crash()
                guard try store.shard.makeView().snapshot(record.id) == nil else {
                    throw ModelFailure("a snapshot that was being made is there after a crash")
                }
                return try audit()
            }
            let hidden = record
            record = try store.change { (transaction) throws(StoreError) in try transaction.reveal(hidden) }
        }
        volume.outstanding.append(snapshot)
        snapshots.append(snapshot)
        if random.chance(30) { try expect(of: snapshot) }
    }

    private mutating func expect(of snapshot: Snapshot) throws {
        let content = snapshot.layer.content
        var rows: [(ChunkIndex, Fingerprint)] = []
        for _ in 0..<1 + random.below(4) {
            let chunk = random.below(content.chunkCount)
            // What is there already, what a later write of a common chunk will bring, zeros, and what never comes.
            let token =
                switch random.below(4) {
                case 0: content.fingerprint(of: chunk)
                case 1: common(content, chunk, kind: 1).fingerprint(of: chunk)
                case 2: ZeroChunk.fingerprint(chunkSize)
                default: Fingerprint(bytes: Array(repeating: 9, count: 32))!
                }
            rows.append((ChunkIndex(UInt64(chunk)), token))
            snapshot.expected[chunk] = token
        }
        let (id, expected) = (snapshot.id, rows)
        try store.change { (transaction) throws(StoreError) in
            try transaction.expect(expected, in: try transaction.snapshot(id)!)
        }
    }

    /// What is expected and not there.
    private func missing(of snapshot: Snapshot) -> [Int] {
        let content = snapshot.layer.content
        return snapshot.expected.filter { content.fingerprint(of: $0.key) != $0.value }.map(\.key).sorted()
    }

    /// Counts it, as the service does when it is asked: also of those that take no data yet.
    /// - Returns: whether anything is missing.
    private func checkExpected(of snapshot: Snapshot) throws -> Bool {
        if snapshot.expected.isEmpty { return false }
        let expected = missing(of: snapshot)
        let found = try countExpected(snapshot.id)
        guard found == expected else { throw ModelFailure("missing are \(found) instead of \(expected)") }
        let counted = try store.shard.makeView().snapshot(snapshot.id)!.missing
        guard counted == UInt64(found.count) else {
            throw ModelFailure("\(counted) are missing instead of \(found.count)")
        }
        return !found.isEmpty
    }

    private mutating func complete(_ snapshot: Snapshot) throws {
        last = "complete"
        let id = snapshot.id
        for other in snapshot.volume.outstanding where random.chance(50) { _ = try checkExpected(of: other) }
        if try checkExpected(of: snapshot) { return }
        let done = try store.change { (transaction) throws(StoreError) in
            let snapshot = try transaction.snapshot(id)!
            try transaction.declareRebased(snapshot)
            return try transaction.complete(try transaction.snapshot(id)!, at: UnixTime.milliseconds)
        }
        snapshot.layer.isPending = false
        snapshot.needsRebase = false
        snapshot.volume.outstanding.removeFirst()
        snapshot.volume.head = snapshot.layer
        guard done.state == snapshot.state else { throw ModelFailure("\(done.state) instead of \(snapshot.state)") }
    }

    /// As the service does; gives what is missing.
    private func countExpected(_ id: SnapshotID) throws -> [Int] {
        var missing: [Int] = []
        var next: ChunkIndex? = ChunkIndex(0)
        var repeats = 0
        while let from = next {
            let page = try store.shard.expected(of: store.shard.makeView().snapshot(id)!, from: from, limit: 2)
            let isAsFound = try store.change { (transaction) throws(StoreError) in
                try transaction.count(page, in: try transaction.snapshot(id)!)
            }
            guard isAsFound else {
                // The background merged or moved something.
                repeats += 1
                guard repeats < 100 else { throw ModelFailure("what is expected changes by itself") }
                continue
            }
            missing += page.missing.map { Int($0.chunk.rawValue) }
            next = page.next
        }
        return missing
    }

    private mutating func cancel(_ snapshot: Snapshot) throws {
        let keepsRecord = random.chance(40)
        last = "cancel, as an error \(keepsRecord)"
        let id = snapshot.id
        try store.change(reclaims: true) { (transaction) throws(StoreError) in
            try transaction.cancel(try transaction.snapshot(id)!, keepsRecord: keepsRecord, at: UnixTime.milliseconds)
        }
        drop(snapshot)
        if keepsRecord { snapshot.isError = true } else { snapshots.removeAll { $0 === snapshot } }
    }

    /// What counted on the snapshot starts from the one before it; what was cloned from it stays on it.
    private func drop(_ snapshot: Snapshot) {
        let (volume, layer) = (snapshot.volume, snapshot.layer)
        let place = volume.outstanding.firstIndex { $0 === snapshot }!
        volume.outstanding.remove(at: place)
        for later in volume.outstanding[place...] { later.needsRebase = true }
        for other in volume.outstanding.map(\.layer) + volume.cancelled where other.below === layer {
            other.below = layer.below
        }
        layer.isPending = false
        volume.cancelled.append(layer)
    }

    private mutating func delete(_ snapshot: Snapshot) throws {
        // The service leaves initial snapshots to their volumes.
        if snapshot.isInitial { return }
        last = "delete a snapshot that is \(snapshot.state)"
        let id = snapshot.id
        try store.change(reclaims: true) { (transaction) throws(StoreError) in
            try transaction.deleteSnapshot(try transaction.snapshot(id)!)
        }
        if snapshot.layer.isPending { drop(snapshot) }
        snapshots.removeAll { $0 === snapshot }
    }

    // MARK: Phases

    private mutating func changeLeases() throws {
        last = "leases"
        let content = ModelContent(
            sectors: Array(repeating: stamp(), count: chunkSize.bytes / 512),
            chunkSize: chunkSize
        )
        let (data, chunkSize, isLong) = (content.data(of: 0), chunkSize, random.chance(50))
        let old = common(content, 0, kind: 2).fingerprint(of: 0)
        try store.change(records: 1, bytes: data.bytes.count) { (transaction) throws(StoreError) in
            let end = UnixTime.milliseconds + (isLong ? 2000 : 1)
            try transaction.stage(data, chunkSize: chunkSize, account: ModelRun.account, until: end)
            _ = try transaction.lease(old, account: ModelRun.account, until: end)
            if !isLong { try transaction.releaseLease(data.fingerprint, account: ModelRun.account) }
        }
    }

    mutating func settleAndAudit() throws {
        last = "settle after " + last
        guard try store.settle() else { throw ModelFailure("the background does not come to rest") }
        try audit()
        for snapshot in snapshots where snapshot.state == .complete {
            let record = try store.shard.makeView().snapshot(snapshot.id)
            guard record?.state == .complete, record?.seal == snapshot.layer.content.seal else {
                throw ModelFailure("not sealed as it should be: \(record.map { "\($0)" } ?? "missing")")
            }
        }
    }

    private func audit() throws {
        let report = try store.shard.audit()
        guard report.problems.isEmpty else { throw ModelFailure("audit: \(report.problems.prefix(5))") }
        guard report.volumes == volumes.count, report.snapshots == snapshots.count else {
            throw ModelFailure("\(report) instead of \(volumes.count) volumes, \(snapshots.count) snapshots")
        }
    }

    private mutating func reopen(crashing: Bool) throws {
        last = (crashing ? "crash after " : "reopen after ") + last
        if crashing { try store.crash(losing: random.chance(40)) } else { try store.reopen() }
        try audit()
        try checkAll()
    }

    /// All goes, in any order; nothing must be left of it.
    mutating func deleteAll() throws {
        while !volumes.isEmpty || !snapshots.isEmpty {
            for snapshot in snapshots {
                snapshot.isInitial = snapshot.isInitial && volumes.contains { $0.initial == snapshot.id }
            }
            if random.chance(50), let volume = pick(volumes) { try delete(volume) }
            if let snapshot = pick(snapshots) { try delete(snapshot) }
            if random.chance(10) { try reopen(crashing: true) }
        }
        // Leases as well.
        Thread.sleep(forTimeInterval: 2)
        let end = Date() + 10
        while try store.shard.audit().leases > 0, Date() < end { usleep(50_000) }
        try settleAndAudit()
        let report = try store.shard.audit()
        guard report.entries == 0, report.chunks == 0, report.liveBytes == 0 else {
            throw ModelFailure("left over: \(report)")
        }
        let usage = try store.shard.makeView().usage(of: ModelRun.account)
        guard usage == AccountUsage() else { throw ModelFailure("left over: \(usage)") }
    }
}
