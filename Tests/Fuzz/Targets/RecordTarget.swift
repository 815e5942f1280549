import CairnCore
import CairnLog

@testable import CairnStore

/// A value of the index that decodes is encoded to something that decodes to the same; keys come apart or do not.
enum RecordTarget {
    // Safety: types, which never change.
    nonisolated(unsafe) private static let records: [any (StoredRecord & Hashable).Type] = [
        VolumeRecord.self, SnapshotRecord.self, IdempotencyRecord.self, LineageRecord.self, RetainedRecord.self,
        ChunkRecord.self, SegmentRecord.self, ManifestEntry.self, LogPosition.self, WorkItem.self, LeaseRecord.self,
        AccountLimits.self, AccountUsage.self, IntentRecord.self,
    ]

    static func run(_ bytes: UnsafeRawBufferPointer) {
        var input = FuzzInput(bytes)
        let choice = input.below(records.count + 3)
        if choice < records.count {
            check(records[choice], input.rest)
        } else if choice == records.count {
            checkKey(input.rest)
        } else if choice == records.count + 1 {
            checkWrittenMap(input.rest)
        } else {
            _ = try? StoreHeader.decode(Array(input.rest), "a store")
        }
    }

    private static func check<Record: StoredRecord & Hashable>(_: Record.Type, _ bytes: UnsafeRawBufferPointer) {
        guard let record = try? Record.decode(bytes) else { return }
        let again: Record
        do throws(StoreError) { again = try Record.decode(record.encoded) } catch {
            preconditionFailure("what was encoded does not decode: \(error)")
        }
        precondition(again == record, "what was encoded decodes to something else")
    }

    private static func checkWrittenMap(_ bytes: UnsafeRawBufferPointer) {
        guard let map = try? WrittenMap(bytes) else { return }
        precondition(map.encoded.elementsEqual(bytes), "a map is written otherwise than it was read")
    }

    /// Any key, by every way that keys are read.
    static func checkKey(_ key: UnsafeRawBufferPointer) {
        guard let table = key.first.flatMap(Table.init), var reader = KeyReader(key, table) else { return }
        switch table {
        case .chunks, .unreferenced, .leases:
            _ = reader.takeChunk()
        case .volumes, .snapshots, .volumeSnapshots, .outstanding, .expected:
            _ = (reader.takeID(), reader.take(UInt64.self), reader.takeID())
        default:
            _ = (reader.take(UInt32.self), reader.take(UInt64.self), reader.takeID())
        }
        _ = reader.takeRest()
    }
}
