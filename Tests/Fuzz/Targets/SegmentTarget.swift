import CairnCore

@testable import CairnLog

/// A damaged log is recovered or refused with an error that says where; what was recovered once is recovered again, and can be
/// written to.
enum SegmentTarget {
    static func run(_ bytes: UnsafeRawBufferPointer) {
        var input = FuzzInput(bytes)
        var image = LogImage.image
        let repairs = input.flag()
        let from = position(&input)
        let location = RecordLocation(
            segment: SegmentID(UInt32(input.below(5))),
            offset: input.long(),
            length: input.long(),
            seed: input.long()
        )
        let scanned = input.flag() ? SegmentID(UInt32(1 + input.below(3))) : nil
        while !input.isAtEnd { damage(&image, &input) }
        if repairs { LogImage.repair(&image) }
        let storage = MemoryStorage(image)
        do throws(LogError) { try recover(storage, from, location, scanned) } catch {
            _ = "\(error)"
        }
    }

    /// What the index says that it holds.
    private static func position(_ input: inout FuzzInput) -> LogPosition? {
        switch input.below(8) {
        case 0:
            return LogPosition(
                lsn: LSN(UInt64(input.long())),
                epoch: Epoch(UInt64(input.byte())),
                segment: SegmentID(UInt32(input.below(5))),
                offset: input.long()
            )
        case 1...2:
            let lsn = 1 + input.below(5)
            return LogPosition(
                lsn: LSN(UInt64(lsn)),
                epoch: Epoch(1),
                segment: SegmentID(lsn < 4 ? 1 : 2),
                offset: UInt32((lsn < 4 ? lsn + 1 : lsn - 2) * Format.block)
            )
        default: return nil
        }
    }

    /// One change behind the log's back.
    private static func damage(_ image: inout MemoryStorage.Image, _ input: inout FuzzInput) {
        let operation = input.below(6)
        let place = input.below(4)
        let segment = SegmentID(UInt32(place))
        func change(_ body: (inout [UInt8]) -> Void) {
            if place == 0 {
                body(&image.superblock)
            } else if image.segments[segment] != nil {
                body(&image.segments[segment]!)
            }
        }
        switch operation {
        case 0, 1:
            let offset = input.word()
            let new = Array(input.bytes(operation == 0 ? 1 : 8))
            change { bytes in
                let end = min(bytes.count, offset + new.count)
                if offset < end { bytes.replaceSubrange(offset..<end, with: new[..<(end - offset)]) }
            }
        case 2:
            let (source, target) = (input.below(8) * Format.block, input.below(8) * Format.block)
            change { bytes in
                guard max(source, target) + Format.block <= bytes.count else { return }
                bytes.replaceSubrange(target..<target + Format.block, with: bytes[source..<source + Format.block])
            }
        case 3:
            let offset = input.word() & ~511
            change { bytes in
                let end = min(bytes.count, offset + 512)
                if offset < end { bytes.replaceSubrange(offset..<end, with: repeatElement(0, count: end - offset)) }
            }
        case 4:
            let count = input.word()
            change { $0 = Array($0.prefix(count)) }
        default:
            let other = SegmentID(UInt32(1 + input.below(3)))
            if place == 0 { image.segments[other] = nil } else { image.segments[segment] = image.segments[other] }
        }
    }

    private static func recover(
        _ storage: MemoryStorage,
        _ from: LogPosition?,
        _ location: RecordLocation,
        _ scanned: SegmentID?
    ) throws(LogError) {
        let recovery = try LogRecovery(storage, identity: LogImage.identity, options: LogOptions(), from: from)
        var position = from
        var commits: [[UInt8]] = []
        while let group = try recovery.next() {
            position = group.position
            commits.append(Array(group.commit.bytes))
            precondition(commits.count < 1000, "recovery does not end")
        }
        try checkAgain(storage, from, position, commits)
        let live = Set((1...3).map { SegmentID($0) })
        let log = try recovery.begin(durable: position, live: live)
        _ = try? log.read(location)
        _ = try? log.read([location, location])
        if let scanned, var scan = try SegmentScan(scanned, of: log) {
            while try scan.next() != nil {}
        }
        try write(log, storage, position)
    }

    /// The same again: a recovery that was killed has changed nothing.
    private static func checkAgain(
        _ storage: MemoryStorage,
        _ from: LogPosition?,
        _ position: LogPosition?,
        _ commits: [[UInt8]]
    ) throws(LogError) {
        let recovery = try LogRecovery(storage, identity: LogImage.identity, options: LogOptions(), from: from)
        var again: [[UInt8]] = []
        var end = from
        while let group = try recovery.next() {
            end = group.position
            again.append(Array(group.commit.bytes))
        }
        precondition(again == commits && end == position, "a second recovery finds something else")
    }

    /// What is written after the recovery is found by the next one, and nothing else.
    private static func write(_ log: SegmentLog, _ storage: MemoryStorage, _ position: LogPosition?) throws(LogError) {
        let commit: [UInt8] = [1, 2, 3]
        let group = try log.makeGroup(for: .reclaim, records: 0, bytes: 0, commit: commit.count)
        try group.finish(commit: commit)
        let written = try log.write(group, sync: true)
        let recovery = try LogRecovery(storage, identity: LogImage.identity, options: LogOptions(), from: position)
        guard let found = try recovery.next() else { preconditionFailure("an acknowledged group is lost") }
        precondition(found.position == written && found.commit.bytes.elementsEqual(commit), "another group is found")
        let end = try recovery.next()
        precondition(end == nil, "there is a group that nobody wrote")
    }
}
