internal import CairnCore

/// What a volume was sent but has not made durable yet: for each byte the newest write, so that sending it again never puts
/// older data over newer (SPEC U8). Pure: no I/O, no clock.
struct UnflushedWrites: Sendable {
    enum Content: Sendable {
        case bytes(BufferSlice)
        case zeros
        case hole
    }
    struct Write: Sendable {
        let range: Range<UInt64>
        let content: Content
        /// The verifier that its answer carried.
        let verifier: [UInt8]
        /// Rises with each write.
        let number: UInt64
        /// The lowest number among it and the unflushed writes whose place it took: a flush that promises one of those promises
        /// this one in its stead.
        let since: UInt64
        /// Whether it and all whose place it took were answered with the same verifier.
        let isOfOneServer: Bool

        /// The part of it that lies in `part`, which it holds.
        func cut(to part: Range<UInt64>) -> Write {
            var content = content
            if case .bytes(let slice) = content {
                let start = Int(part.lowerBound - range.lowerBound)
                content = .bytes(slice.part(start..<start + Int(part.upperBound - part.lowerBound)))
            }
            return Write(
                range: part,
                content: content,
                verifier: verifier,
                number: number,
                since: since,
                isOfOneServer: isOfOneServer
            )
        }
    }

    /// By rising offset, without overlaps.
    private(set) var writes: [Write] = []
    /// Bytes of data that are held.
    private(set) var heldBytes = 0
    /// The number of the last write.
    private(set) var last: UInt64 = 0

    /// Takes a write that was answered: it replaces what it covers.
    mutating func add(_ range: Range<UInt64>, _ content: Content, verifier: [UInt8]) {
        guard !range.isEmpty else { return }
        last += 1
        let first = firstIndex { $0.range.upperBound > range.lowerBound }
        let end = firstIndex { $0.range.lowerBound >= range.upperBound }
        let new = Write(
            range: range,
            content: content,
            verifier: verifier,
            number: last,
            since: writes[first..<end].reduce(last) { min($0, $1.since) },
            isOfOneServer: writes[first..<end].allSatisfy { $0.isOfOneServer && $0.verifier == verifier }
        )
        var replacement: [Write] = []
        if first < end {
            let before = writes[first]
            if before.range.lowerBound < range.lowerBound {
                replacement.append(before.cut(to: before.range.lowerBound..<range.lowerBound))
            }
            replacement.append(new)
            let after = writes[end - 1]
            if after.range.upperBound > range.upperBound {
                replacement.append(after.cut(to: range.upperBound..<after.range.upperBound))
            }
        } else {
            replacement = [new]
        }
        heldBytes += UnflushedWrites.bytes(of: replacement[...]) - UnflushedWrites.bytes(of: writes[first..<end])
        writes.replaceSubrange(first..<end, with: replacement)
    }

    /// The server made durable what was written up to `number`, as long as it was this server: forgets that.
    mutating func flushed(through number: UInt64, verifier: [UInt8]) {
        remove { $0.number <= number && $0.verifier == verifier }
    }

    /// What must be sent again after a flush that promised what was written up to `number`, and was answered with `verifier`:
    /// what a server that has gone was sent, and newer writes that took the place of such. Those may have come after the flush,
    /// so that neither they nor what they cover need be durable. A newer write is left alone where this server was sent all that
    /// it covers: of that the flush made durable what it promised.
    func lost(through number: UInt64, verifier: [UInt8]) -> [Write] {
        writes.filter { write in
            let isKept = write.verifier == verifier && (write.number <= number || write.isOfOneServer)
            return write.since <= number && !isKept
        }
    }

    /// These were sent again, and are durable.
    mutating func settled(_ settled: [Write]) {
        // Not by their numbers: what was written over in its middle is two writes of one number.
        let ranges = Set(settled.map(\.range))
        remove { ranges.contains($0.range) }
    }

    private mutating func remove(where isGone: (Write) -> Bool) {
        writes.removeAll(where: isGone)
        heldBytes = UnflushedWrites.bytes(of: writes[...])
    }

    /// The first write for which `condition`, which stays true once it is, holds.
    private func firstIndex(where condition: (Write) -> Bool) -> Int {
        var (low, high) = (0, writes.count)
        while low < high {
            let middle = (low + high) / 2
            if condition(writes[middle]) { high = middle } else { low = middle + 1 }
        }
        return low
    }

    private static func bytes(of writes: ArraySlice<Write>) -> Int {
        writes.reduce(0) { sum, write in
            if case .bytes(let slice) = write.content { sum + slice.count } else { sum }
        }
    }
}
