import CairnCore
import CairnCrypto
import CairnTesting

/// What the service must hold, told as SPEC tells it: each volume is a pile of versions, each version says which sectors it wrote, and
/// what shows is the newest that wrote a sector. Nothing of how the store keeps it.
///
/// A sector's content is its *stamp*: 0 is zeros, from any other its 512 bytes follow.
typealias Stamp = UInt32

/// What one version wrote of one chunk.
struct Written {
    /// What the last write of the whole chunk made of it; nothing: only sectors were written, the rest shows what is below.
    enum Whole { case nothing, data, zeros, hole }
    var whole = Whole.nothing
    /// By their place in the chunk; the others are zeros where the whole chunk was written.
    var sectors: [Int: Stamp] = [:]
    /// Whether sectors were written one by one since.
    var hasParts = false
    /// What these replaced: kept below them until they are merged.
    var covered: Set<Stamp> = []
}

/// A volume's versions, which stay as long as anything shows them: also when the volume is gone.
final class Pile {
    struct Below {
        let pile: Pile
        let version: UInt64
        let sectors: Int
        let snapshot: [UInt8]
        let volume: [UInt8]
    }
    let account: AccountID
    let chunkSize: ChunkSize
    let below: Below?
    var versions: [UInt64: [Int: Written]] = [:]
    /// Snapshots that were cancelled: only what was made from them shows these.
    var cancelled: Set<UInt64> = []
    /// Snapshots that are to be completed yet.
    var incomplete: Set<UInt64> = []

    init(_ account: AccountID, _ chunkSize: ChunkSize, over below: Below?) {
        (self.account, self.chunkSize, self.below) = (account, chunkSize, below)
    }

    /// SPEC V5: whether nothing more can show through from below.
    var isSettled: Bool {
        guard let below else { return true }
        return below.pile.incomplete.allSatisfy { $0 > below.version } && below.pile.isSettled
    }

    func newestFirst(upTo version: UInt64) -> [UInt64] {
        versions.keys.filter { $0 <= version && ($0 == version || !cancelled.contains($0)) }.sorted(by: >)
    }
}

/// What a volume or snapshot shows of a chunk.
struct Shown {
    struct Part: Hashable {
        let account: AccountID
        /// How many sources down it was found: 0 is the volume's own.
        let depth: Int
    }
    /// Of all sectors that a chunk has room for.
    var stamps: [Stamp]
    /// Whose each sector is that is not zero.
    var owners: [Part?]
    /// Everybody who wrote bytes into it, also where others wrote over them since.
    var writers: [Part] = []
    /// What it was last made as a whole; nothing: never.
    var whole = Written.Whole.nothing
    /// Whether sectors were written one by one since.
    var hasParts = false

    var isZero: Bool { stamps.allSatisfy { $0 == 0 } }
}

extension Pile {
    var sectorsPerChunk: Int { chunkSize.bytes / 512 }

    func show(_ chunk: Int, at version: UInt64, sectors end: Int) -> Shown {
        let count = sectorsPerChunk
        var shown = Shown(stamps: Array(repeating: 0, count: count), owners: Array(repeating: nil, count: count))
        var isKnown = [Bool](repeating: false, count: count)
        var (pile, version, end, depth) = (self, version, end, 0)
        while true {
            for newer in pile.newestFirst(upTo: version) {
                guard let written = pile.versions[newer]?[chunk] else { continue }
                let writer = Shown.Part(account: pile.account, depth: depth)
                for place in 0..<count where !isKnown[place] && chunk * count + place < end {
                    guard let stamp = written.sectors[place] ?? (written.whole == .nothing ? nil : 0) else { continue }
                    isKnown[place] = true
                    shown.stamps[place] = stamp
                    if stamp != 0 { shown.owners[place] = writer }
                }
                if written.hasParts { shown.hasParts = true }
                if written.hasParts || written.whole == .data { shown.writers.append(writer) }
                if written.whole != .nothing {
                    shown.whole = written.whole
                    return shown
                }
            }
            guard let below = pile.below else { return shown }
            (pile, version, end, depth) = (below.pile, below.version, min(end, below.sectors), depth + 1)
        }
    }
}

extension World {
    final class Volume {
        let id: [UInt8]
        let account: AccountID
        let isLocal: Bool
        let pile: Pile
        let initial: [UInt8]
        /// What the next write or snapshot carries.
        var version: UInt64
        var sectors: Int
        var attachment: UInt64 = 0
        var tags: [String: String] = [:]

        init(_ id: [UInt8], _ account: AccountID, isLocal: Bool, _ pile: Pile, initial: [UInt8], sectors: Int) {
            (self.id, self.account, self.isLocal, self.pile) = (id, account, isLocal, pile)
            (self.initial, self.sectors, version) = (initial, sectors, 2)
        }
    }

    final class Snapshot {
        let id: [UInt8]
        let token: [UInt8]
        let volume: [UInt8]
        let pile: Pile
        let version: UInt64
        let sectors: Int
        let isInitial: Bool
        var isPending = false
        var wasCloned = false
        var isError = false
        var needsRebase = false
        var progress: UInt32 = 0
        var expected: [Int: Fingerprint] = [:]
        var tags: [String: String] = [:]

        init(_ id: [UInt8], token: [UInt8], of volume: Volume, version: UInt64, isInitial: Bool = false) {
            (self.id, self.token, self.volume, pile) = (id, token, volume.id, volume.pile)
            (self.version, sectors, self.isInitial) = (version, volume.sectors, isInitial)
            progress = isInitial ? 100 : 0
        }
        var account: AccountID { pile.account }
        var isComplete: Bool { !isPending && !isError && pile.isSettled }
    }
}

/// The reference.
struct World {
    /// In the order of their making, so that a seed chooses the same.
    var volumes: [Volume] = []
    var snapshots: [Snapshot] = []
    var grants: [Grant] = []
    /// Who ever wrote a stamp.
    var writers: [Stamp: Set<AccountID>] = [:]

    func volume(_ id: [UInt8]) -> Volume? { volumes.first { $0.id == id } }
    func outstanding(of volume: [UInt8]) -> [Snapshot] { snapshots.filter { $0.isPending && $0.volume == volume } }

    mutating func complete(_ snapshot: Snapshot) {
        snapshot.isPending = false
        snapshot.progress = 100
        snapshot.expected = [:]
        snapshot.pile.incomplete.remove(snapshot.version)
    }

    /// A snapshot is deleted, or, where `isError`, left as one that cannot be read.
    mutating func remove(_ snapshot: Snapshot, isError: Bool = false) {
        if snapshot.isPending {
            snapshot.pile.cancelled.insert(snapshot.version)
            snapshot.pile.incomplete.remove(snapshot.version)
            for later in outstanding(of: snapshot.volume) where later.version > snapshot.version {
                later.needsRebase = true
            }
        }
        (snapshot.isPending, snapshot.isError) = (false, isError)
        if isError { return }
        snapshots.removeAll { $0 === snapshot }
        grants.removeAll { $0.resource == .snapshot(snapshot.id) }
        forgetGrantsOfVolumes()
    }

    mutating func remove(_ volume: Volume) {
        volumes.removeAll { $0 === volume }
        forgetGrantsOfVolumes()
    }

    /// Those for a volume go when neither it nor a snapshot of it is left.
    private mutating func forgetGrantsOfVolumes() {
        let left = Set(volumes.map(\.id) + snapshots.map(\.volume))
        grants.removeAll { grant in
            if case .volume(let id) = grant.resource { return !left.contains(id) }
            return false
        }
    }
}
