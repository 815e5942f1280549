import CairnCore
import CairnWire

/// What LOCAL and REMOTE volumes, their snapshots and clones must hold, told in the plainest way: layers of sectors.
struct LocalModel {
    static let chunk = 4096
    /// Chunks that are written to; the volumes are larger.
    static let chunks = 6
    static let sectors = chunks * chunk / 512

    struct Lineage {
        let parent: (lineage: Int, version: UInt64)?
        /// What each version wrote: a sector's bytes are all the same.
        var layers: [UInt64: [Int: UInt8]] = [:]
        var cancelled: Set<UInt64> = []
        /// Versions that take data.
        var incomplete: Set<UInt64> = []
    }
    struct Volume {
        let id: [UInt8]
        let isLocal: Bool
        let lineage: Int
        /// What the next write or snapshot carries.
        var version: UInt64
    }
    struct Snapshot {
        let id: [UInt8]
        let volume: [UInt8]
        let lineage: Int
        let version: UInt64
        var isPending: Bool
        var needsRebase = false
        /// Whether it is there to be read.
        var isVisible = true
    }

    var lineages: [Lineage] = []
    var volumes: [Volume] = []
    var snapshots: [Snapshot] = []

    func read(_ lineage: Int, _ version: UInt64) -> [UInt8] {
        (0..<Self.sectors).map { sector in value(sector, lineage, version) }
    }

    private func value(_ sector: Int, _ lineage: Int, _ version: UInt64) -> UInt8 {
        let record = lineages[lineage]
        for (layer, sectors) in record.layers.sorted(by: { $0.key > $1.key }) where layer <= version {
            if record.cancelled.contains(layer), layer != version { continue }
            if let value = sectors[sector] { return value }
        }
        return record.parent.map { value(sector, $0.lineage, $0.version) } ?? 0
    }

    /// For the text of a failure: who wrote a sector, along the lineages.
    func history(of sector: Int, _ lineage: Int) -> String {
        let record = lineages[lineage]
        let layers = record.layers.sorted { $0.key > $1.key }.compactMap { layer, sectors in
            sectors[sector].map { "\(layer): \($0)\(record.cancelled.contains(layer) ? " cancelled" : "")" }
        }
        let own = "lineage \(lineage) \(layers), incomplete \(record.incomplete.sorted()), cancelled \(record.cancelled.sorted())"
        guard let parent = record.parent else { return own }
        return own + "\nover version \(parent.version) of " + history(of: sector, parent.lineage)
    }

    func isSettled(_ lineage: Int) -> Bool {
        guard let parent = lineages[lineage].parent else { return true }
        return lineages[parent.lineage].incomplete.allSatisfy { $0 > parent.version } && isSettled(parent.lineage)
    }

    func isComplete(_ snapshot: Snapshot) -> Bool { !snapshot.isPending && isSettled(snapshot.lineage) }

    /// The place of the snapshot of a volume that takes data.
    func earliest(of volume: [UInt8]) -> Int? { snapshots.firstIndex { $0.isPending && $0.volume == volume } }

    mutating func write(_ sectors: Range<Int>, _ value: UInt8, _ lineage: Int, _ version: UInt64) {
        for sector in sectors { lineages[lineage].layers[version, default: [:]][sector] = value }
    }

    mutating func complete(_ index: Int) {
        snapshots[index].isPending = false
        lineages[snapshots[index].lineage].incomplete.remove(snapshots[index].version)
    }

    /// Deletes a snapshot, or, where `isError`, leaves it as one that cannot be read.
    mutating func remove(_ index: Int, isError: Bool = false) {
        let snapshot = snapshots[index]
        if snapshot.isPending {
            lineages[snapshot.lineage].cancelled.insert(snapshot.version)
            lineages[snapshot.lineage].incomplete.remove(snapshot.version)
            for later in snapshots.indices
            where snapshots[later].isPending && snapshots[later].volume == snapshot.volume
                && snapshots[later].version > snapshot.version
            {
                snapshots[later].needsRebase = true
            }
        }
        snapshots[index].isPending = false
        snapshots[index].isVisible = false
        if !isError { snapshots.remove(at: index) }
    }
}
