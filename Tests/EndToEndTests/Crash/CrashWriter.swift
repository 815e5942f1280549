import CairnCore
import CairnTesting
import CairnWire

/// One account on one connection, whose calls follow each other: writes of stamped sectors, durable and not, flushes,
/// snapshots, clones, deletes, chunks by token, backups of a LOCAL volume. It knows what must be there after a crash.
///
/// ```
/// connect → recover (checks everything) → run (until the server dies, or told to stop) → connect …
/// ```
actor CrashWriter {
    /// How many calls ended how, and what recovery found.
    struct Counts {
        var acknowledged = 0
        /// Calls whose outcome a crash left open, and how many of them were found done.
        var open = 0
        var found = 0
        var refusedAsFull = 0
        var images = 0
    }

    static let imageSectors = (1 << 20) / Picture.sector

    let number: Int
    let account: String
    let ledger: Ledger
    var random: SeededRandom
    var counts = Counts()
    /// The first is never deleted; the others are clones.
    var volumes: [Subject] = []
    /// Complete ones of `volumes[0]`.
    var snapshots: [Subject] = []
    var initialSnapshots: Set<[UInt8]> = []
    var local: (volume: [UInt8], base: Subject?, open: Subject?)?
    /// The backup before `local.base`, which is to go.
    var oldBackup: [UInt8]?
    /// Its outcome is not known.
    var deed: Deed?
    /// Chunks that a lease holds: name them, and they are there.
    var staged: [(token: [UInt8], cells: [Cell], chunkSize: UInt32)] = []
    private var stamps: UInt64
    private var images: UInt64 = 0
    private var isStopping = false
    private var connection: Caller?

    init(_ number: Int, seed: UInt64) throws {
        self.number = number
        account = "writer-\(number)"
        ledger = try Ledger("\(number)")
        random = SeededRandom(seed: seed &+ UInt64(number))
        stamps = UInt64(number + 1) << 48
    }

    var caller: Caller { connection! }
    func use(_ caller: Caller?) { connection = caller }
    func stop() { isStopping = true }
    func say(_ text: String) { ledger.note(text) }
    var name: String { "writer \(number), whose ledger is \(ledger.path)" }

    func nextStamp() -> UInt64 {
        stamps += 1
        return stamps
    }
    func nextImage() -> UInt64 {
        images += 1
        return UInt64(number + 1) << 32 | images << 16
    }
    func nextKey() -> [UInt8] { random.bytes(16) }

    /// What the writer needs before the first crash.
    func prepare() async throws {
        let empty = Picture(sectors: Self.imageSectors)
        let chunkSize: UInt32 = number.isMultiple(of: 2) ? 4096 : 65536
        let made = try await caller.createVolume(chunkSize: chunkSize)
        volumes = [
            Subject(.volumeID(made.volumeID), made.volumeID, image: nextImage(), chunkSize: chunkSize, holding: empty)
        ]
        initialSnapshots = [made.initialSnapshotID]
        let disk = try await caller.createLocal(chunkSize: 65536)
        local = (disk.volumeID, nil, nil)
    }

    /// Works until the server is gone, or it is told to stop; gives why it ended: nil if it was told to.
    func run() async throws -> String? {
        isStopping = false
        do {
            while !isStopping {
                try await step()
            }
            return nil
        } catch let error as Loss {
            throw error
        } catch let error as HarnessError {
            throw error
        } catch {
            // The call may have been done, or not.
            if let refusal = error as? CallError, refusal.reason == .dataLoss { throw Loss("\(name): \(refusal)") }
            ledger.note("ended: \(error)")
            counts.open += 1
            return "\(error)"
        }
    }

    /// A call is on its way: what it does is open until its answer.
    func began(_ text: String) { ledger.note("send \(text)") }

    func acknowledged(_ text: String = "") {
        counts.acknowledged += 1
        ledger.note("done \(text)")
    }

    private func step() async throws {
        if let deed { return try await carryOut(deed) }
        switch random.below(100) {
        case 0..<32: try await write(durability: .durable)
        case 32..<50: try await write(durability: .onFlush)
        case 50..<57: try await flush()
        case 57..<63: try await stage()
        case 63..<68: try await placeStaged()
        case 68..<76 where snapshots.count < 4: try await carryOut(.snapshot(volume: 0, key: nextKey()))
        case 68..<82 where snapshots.count >= 2:
            let deletion = Deed.deleteSnapshot(random.below(snapshots.count), key: nextKey())
            try await carryOut(deletion)
        case 68..<86 where volumes.count < 3 && !snapshots.isEmpty:
            let clone = Deed.clone(snapshot: random.below(snapshots.count), key: nextKey())
            try await carryOut(clone)
        case 76..<88 where volumes.count > 1:
            try await carryOut(.deleteVolume(1 + random.below(volumes.count - 1), key: nextKey()))
        case 88..<96: try await backUp()
        default: try await readBack()
        }
    }
}
