import CairnCore
import Synchronization

/// Volumes and lineages that were looked at lately, decoded: nearly every call begins with one of each, and RocksDB takes ten times
/// as long to find them.
///
/// What is kept is what the index says now: a change takes it out before it is applied, and while one is being applied nothing is
/// looked for or kept. A view is of some moment before: it may take what was kept in its own generation or an earlier one, for a kept
/// record has not changed since. Generations rise with each change of a record of these kinds.
final class HotRecords: Sendable {
    /// When a reader began to look.
    struct Moment {
        fileprivate let records: HotRecords
        fileprivate let generation: UInt64
    }

    /// Records of one kind.
    fileprivate struct Kept<ID: Hashable, Record> {
        private var records: [ID: (record: Record, generation: UInt64)] = [:]

        func record(_ id: ID, by generation: UInt64) -> Record? {
            guard let kept = records[id], kept.generation <= generation else { return nil }
            return kept.record
        }
        mutating func keep(_ record: Record, _ id: ID, _ generation: UInt64) {
            if records.count >= HotRecords.most { records.removeAll(keepingCapacity: true) }
            records[id] = (record, generation)
        }
        mutating func forget(_ id: ID) { records[id] = nil }
    }

    fileprivate struct State {
        var generation: UInt64 = 0
        var changesUnderWay = 0
        var volumes = Kept<VolumeID, VolumeRecord>()
        var lineages = Kept<LineageID, LineageRecord>()

        mutating func forget(_ key: [UInt8]) {
            key.withUnsafeBytes { bytes in
                if var reader = KeyReader(bytes, .volumes), let id = reader.takeID() {
                    volumes.forget(VolumeID(id))
                } else if var reader = KeyReader(bytes, .lineages), let id = reader.take(UInt64.self) {
                    lineages.forget(LineageID(id))
                }
            }
        }
    }

    /// Records of a kind; beyond that all are let go, and those in use are soon back.
    static let most = 1024
    /// Bytes of an encoded record: one with larger tags is not kept.
    static let largest = 1024

    fileprivate let state = Mutex(State())

    static func keeps(_ key: [UInt8]) -> Bool {
        key.first == Table.volumes.rawValue || key.first == Table.lineages.rawValue
    }

    /// To be asked before a view is made; nil while a change is being applied.
    var now: Moment? {
        state.withLock { $0.changesUnderWay == 0 ? Moment(records: self, generation: $0.generation) : nil }
    }

    /// A volume as the index has it now.
    func volume(_ id: VolumeID) -> VolumeRecord? {
        state.withLock { $0.changesUnderWay == 0 ? $0.volumes.record(id, by: $0.generation) : nil }
    }

    /// Applies a change of records with these keys, among others.
    func change(_ keys: [[UInt8]], _ apply: () -> Void) {
        guard !keys.isEmpty else { return apply() }
        state.withLock { state in
            state.generation += 1
            state.changesUnderWay += 1
            for key in keys { state.forget(key) }
        }
        apply()
        state.withLock { $0.changesUnderWay -= 1 }
    }
}

extension HotRecords.Moment {
    func volume(_ id: VolumeID) -> VolumeRecord? { records.state.withLock { $0.volumes.record(id, by: generation) } }
    func lineage(_ id: LineageID) -> LineageRecord? {
        records.state.withLock { $0.lineages.record(id, by: generation) }
    }

    /// - Parameter size: bytes of the record as it is stored.
    func keep(_ volume: VolumeRecord, size: Int) { keep(size) { $0.volumes.keep(volume, volume.id, generation) } }
    func keep(_ lineage: LineageRecord, _ id: LineageID, size: Int) {
        keep(size) { $0.lineages.keep(lineage, id, generation) }
    }

    private func keep(_ size: Int, _ body: (inout HotRecords.State) -> Void) {
        guard size <= HotRecords.largest else { return }
        // What was changed meanwhile may be what was read, or not.
        records.state.withLock { if $0.generation == generation { body(&$0) } }
    }
}
