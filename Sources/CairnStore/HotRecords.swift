import Synchronization

/// Volumes and lineages that were looked at lately, decoded: nearly every call begins with one of each, and RocksDB takes ten times
/// as long to find them.
///
/// What is kept is what the index says now: a change takes it out before it is applied, and while one is being applied nothing is
/// looked for or kept. A view is of some moment before: it may take what was kept in its own generation or an earlier one, for a kept
/// record has not changed since. Generations rise with each change of a record of these kinds.
final class HotRecords: Sendable {
    typealias Record = StoredRecord & Sendable

    /// When a reader began to look.
    struct Moment {
        fileprivate let records: HotRecords
        fileprivate let generation: UInt64
    }

    private struct State {
        var generation: UInt64 = 0
        var changesUnderWay = 0
        var kept: [[UInt8]: (record: any Record, generation: UInt64)] = [:]
    }

    /// Records; beyond that all are let go, and those in use are soon back.
    static let most = 1024
    /// Bytes of an encoded record: one with larger tags is not kept.
    static let largest = 1024

    private let state = Mutex(State())

    static func keeps(_ key: [UInt8]) -> Bool {
        key.first == Table.volumes.rawValue || key.first == Table.lineages.rawValue
    }

    /// To be asked before a view is made; nil while a change is being applied.
    var now: Moment? {
        state.withLock { $0.changesUnderWay == 0 ? Moment(records: self, generation: $0.generation) : nil }
    }

    /// Applies a change of records with these keys, among others.
    func change(_ keys: [[UInt8]], _ apply: () -> Void) {
        guard !keys.isEmpty else { return apply() }
        state.withLock { state in
            state.generation += 1
            state.changesUnderWay += 1
            for key in keys { state.kept[key] = nil }
        }
        apply()
        state.withLock { $0.changesUnderWay -= 1 }
    }
}

extension HotRecords.Moment {
    func record(_ key: [UInt8]) -> (any HotRecords.Record)? {
        records.state.withLock { state in
            guard let kept = state.kept[key], kept.generation <= generation else { return nil }
            return kept.record
        }
    }

    /// - Parameter size: bytes of the record as it is stored.
    func keep(_ record: any HotRecords.Record, _ key: [UInt8], size: Int) {
        guard size <= HotRecords.largest else { return }
        records.state.withLock { state in
            // What was changed meanwhile may be what was read, or not.
            guard state.generation == generation else { return }
            if state.kept.count >= HotRecords.most { state.kept.removeAll(keepingCapacity: true) }
            state.kept[key] = (record, generation)
        }
    }
}
