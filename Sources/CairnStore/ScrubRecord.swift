import CairnCore

/// How far a scrub is, kept in the index: it goes on after a restart.
struct ScrubRecord: StoredRecord, Hashable {
    /// When the present or the last pass began; 0: there was none. All times in milliseconds since 1970.
    var startedAt: UInt64 = 0
    /// When the last whole pass ended; 0: there was none.
    var finishedAt: UInt64 = 0
    var isRunning = false
    /// Whether the operator asked for it.
    var isOnDemand = false
    /// Of one that was asked for, the most bytes each second; 0: as fast as it can.
    var rate: UInt64 = 0
    /// Bytes of records read in this pass, and about how many there were when it began.
    var bytes: UInt64 = 0
    var total: UInt64 = 0
    /// What was newly found damaged in this pass.
    var found: UInt64 = 0
    /// The key of the index to go on with.
    var position: [UInt8] = []

    init() {}

    func write(to writer: inout ByteWriter) {
        for time in [startedAt, finishedAt] { writer.put(time) }
        writer.put(UInt8(isRunning ? 1 : 0))
        writer.put(UInt8(isOnDemand ? 1 : 0))
        for count in [rate, bytes, total, found] { writer.put(count) }
        writer.put(UInt32(position.count))
        writer.put(bytes: position)
    }

    init?(_ reader: inout ByteReader) {
        guard let startedAt = reader.take(UInt64.self), let finishedAt = reader.take(UInt64.self),
            let isRunning = reader.take(UInt8.self), let isOnDemand = reader.take(UInt8.self),
            let rate = reader.take(UInt64.self), let bytes = reader.take(UInt64.self),
            let total = reader.take(UInt64.self), let found = reader.take(UInt64.self),
            let count = reader.take(UInt32.self), let position = reader.take(bytes: Int(count))
        else { return nil }
        (self.startedAt, self.finishedAt) = (startedAt, finishedAt)
        (self.isRunning, self.isOnDemand) = (isRunning == 1, isOnDemand == 1)
        (self.rate, self.bytes, self.total, self.found) = (rate, bytes, total, found)
        self.position = position
    }
}

/// How a shard's scrub stands.
public struct ScrubStatus: Sendable, Hashable {
    public let isRunning: Bool
    /// Whether the operator asked for the pass.
    public let isOnDemand: Bool
    /// Of the present or the last pass; 0: there was none. Times are milliseconds since 1970.
    public let startedAt: UInt64
    /// When the last whole pass ended; 0: there was none.
    public let finishedAt: UInt64
    /// Bytes of records read in the present or last pass, and about how many there are.
    public let bytes: UInt64
    public let totalBytes: UInt64
    /// Chunks and parts that the pass found damaged, and that were not known to be.
    public let found: UInt64
    /// Where the index itself is damaged, or a copy of it was, since the server was started; nil: nowhere as far as it was read.
    public let indexProblem: String?
}
