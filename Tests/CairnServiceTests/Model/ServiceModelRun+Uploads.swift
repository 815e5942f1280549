import CairnCore
import CairnCrypto
import CairnTesting
import CairnWire

@testable import CairnService

/// UploadBlock (SPEC section 4), WriteZeroes, Discard, Flush.
extension ServiceModelRun {
    /// What one block does to one chunk.
    enum Edit {
        case whole(Written.Whole, [Stamp])
        case part(start: Int, [Stamp])
    }
    struct Block {
        var wire: Wire.UploadBlock
        var payload: [UInt8]
        var edits: [(chunk: Int, edit: Edit)]
        /// Of a block that names a chunk.
        var token: ModelContents.Chunk?
        /// What the answer tells of it: offset and fingerprint (SPEC U6).
        var told: [Wire.WrittenChunk] = []
    }

    /// What a call writes to.
    struct Place {
        let source: World.Source
        var pile: Pile { source.pile }
        var count: Int { pile.sectorsPerChunk }
        /// Sectors that a chunk has in the volume.
        func room(_ chunk: Int) -> Int { min(count, source.sectors - chunk * count) }
    }

    // MARK: Blocks

    /// Some blocks that do not overlap, in order.
    func makeBlocks(_ place: Place, _ account: AccountID, wanted: World.Snapshot? = nil) -> [Block] {
        var blocks: [Block] = []
        var left = activeChunks(place.source)[...]
        left = left.dropFirst(random.below(left.count - 1))
        while let chunk = left.popFirst(), blocks.isEmpty || (blocks.count < 5 && chance(60)) {
            if chance(25), !blocks.isEmpty { continue }
            var token: ModelContents.Chunk?
            if let fingerprint = wanted?.expected[chunk], chance(60) {
                token = contents.known.first { $0.fingerprint == fingerprint && $0.size == place.pile.chunkSize }
            }
            // Two chunks at once, now and then: bytes need not stop at a chunk's end.
            if token == nil, let next = left.first, next == chunk + 1, chance(15) {
                left.removeFirst()
                blocks.append(
                    makeBlock(
                        place,
                        sectors: chunk * place.count
                            + random.below(place.count)..<(next * place.count + 1 + random.below(place.room(next)))
                    )
                )
                continue
            }
            blocks.append(makeBlock(place, chunk, account, wanted: token))
        }
        return blocks
    }

    private func makeBlock(_ place: Place, _ chunk: Int, _ account: AccountID, wanted: ModelContents.Chunk?) -> Block {
        let room = place.room(chunk)
        let start = chunk * place.count
        if let wanted { return bytesBlock(place, chunk, wanted) }
        switch random.below(100) {
        case 0..<30:
            let old = contents.known.filter {
                $0.size == place.pile.chunkSize && $0.stamps[room...].allSatisfy { $0 == 0 }
            }
            // The same bytes as somebody else's, at times: having them is a right of one's own.
            let chunkContent = chance(35) ? pick(old) : nil
            return bytesBlock(place, chunk, chunkContent ?? contents.make(place.pile.chunkSize, room: room, &random))
        case 30..<55:
            let first = random.below(room)
            return makeBlock(place, sectors: start + first..<start + first + 1 + random.below(room - first))
        case 55..<80:
            if let named = pick(contents.known) { return tokenBlock(place, chunk, named) }
            return makeBlock(place, sectors: start..<start + 1)
        default:
            let isHole = chance(50)
            let first = chance(60) ? 0 : random.below(room)
            let end = first == 0 && chance(80) ? room : first + 1 + random.below(room - first)
            return markBlock(place, start + first..<start + end, isHole: isHole)
        }
    }

    /// Bytes of any range: whole chunks of it, and parts.
    private func makeBlock(_ place: Place, sectors: Range<Int>) -> Block {
        let isZero = chance(8)
        let stamps = sectors.map { _ in isZero || chance(10) ? 0 : contents.stamp() }
        let bytes = ModelContents.bytes(stamps)
        let wire = ServiceHarness.block(bytes, at: UInt64(sectors.lowerBound) * 512)
        var block = Block(wire: wire, payload: bytes, edits: [])
        for chunk in sectors.lowerBound / place.count...(sectors.upperBound - 1) / place.count {
            let range = sectors.clamped(to: chunk * place.count..<chunk * place.count + place.room(chunk))
            let piece = Array(stamps[range.lowerBound - sectors.lowerBound..<range.upperBound - sectors.lowerBound])
            if range.count == place.room(chunk) {
                block.edits.append((chunk, whole(piece, place)))
                let all = piece + [Stamp](repeating: 0, count: place.count - piece.count)
                if case .whole(.data, _)? = block.edits.last?.edit { contents.remember(all, place.pile.chunkSize) }
                block.told.append(told(chunk, contents.fingerprint(all), place))
            } else {
                block.edits.append((chunk, .part(start: range.lowerBound - chunk * place.count, piece)))
            }
        }
        return block
    }

    private func whole(_ stamps: [Stamp], _ place: Place) -> Edit {
        let all = stamps + [Stamp](repeating: 0, count: place.count - stamps.count)
        return .whole(all.allSatisfy { $0 == 0 } ? .zeros : .data, all)
    }

    private func bytesBlock(_ place: Place, _ chunk: Int, _ content: ModelContents.Chunk, isPlain: Bool = false)
        -> Block
    {
        let raw = ModelContents.bytes(content.stamps[..<place.room(chunk)])
        let offset = UInt64(chunk * place.pile.chunkSize.bytes)
        var wire = ServiceHarness.block(raw, at: offset)
        var payload = raw
        if !isPlain, chance(25) {
            var packed = [UInt8](repeating: 0, count: raw.count * 2)
            let count = raw.withUnsafeBytes { from in packed.withUnsafeMutableBytes { LZ4.compress(from, into: $0) } }
            if let count {
                payload = Array(packed[..<count])
                wire.codec = .lz4
                wire.source = .payloadLength(UInt32(count))
            }
        }
        if !isPlain, chance(20) {
            let algorithm: Wire.ChecksumAlgorithm = [.crc32, .md5, .sha256][random.below(3)]
            wire.checksum = Wire.Checksum(
                algorithm: algorithm,
                value: raw.withUnsafeBytes { Checksum.value(algorithm, over: $0) }
            )
        }
        return Block(
            wire: wire,
            payload: payload,
            edits: [(chunk, whole(content.stamps, place))],
            told: [told(chunk, content.fingerprint, place)]
        )
    }

    private func told(_ chunk: Int, _ fingerprint: Fingerprint, _ place: Place) -> Wire.WrittenChunk {
        Wire.WrittenChunk(offset: UInt64(chunk * place.pile.chunkSize.bytes), token: fingerprint.bytes)
    }

    private func tokenBlock(_ place: Place, _ chunk: Int, _ content: ModelContents.Chunk) -> Block {
        var wire = Wire.UploadBlock()
        wire.offset = UInt64(chunk * place.pile.chunkSize.bytes)
        wire.length = UInt32(place.room(chunk) * 512)
        wire.source = .token(content.fingerprint.bytes)
        return Block(
            wire: wire,
            payload: [],
            edits: [(chunk, .whole(.data, content.stamps))],
            token: content,
            told: [told(chunk, content.fingerprint, place)]
        )
    }

    private func markBlock(_ place: Place, _ sectors: Range<Int>, isHole: Bool) -> Block {
        var wire = Wire.UploadBlock()
        wire.offset = UInt64(sectors.lowerBound) * 512
        wire.length = UInt32(sectors.count * 512)
        wire.source = isHole ? .hole(Wire.Empty()) : .zeros(Wire.Empty())
        return Block(wire: wire, payload: [], edits: markEdits(place, sectors, isHole: isHole))
    }

    /// The same with its bytes instead of a token.
    func sendingBytes(_ block: Block, _ place: Place) -> Block {
        guard let content = block.token else { return block }
        return bytesBlock(place, block.edits[0].chunk, content, isPlain: true)
    }

    func markEdits(_ place: Place, _ sectors: Range<Int>, isHole: Bool) -> [(chunk: Int, edit: Edit)] {
        (sectors.lowerBound / place.count...(sectors.upperBound - 1) / place.count).map { chunk in
            let range = sectors.clamped(to: chunk * place.count..<chunk * place.count + place.room(chunk))
            if range.count == place.room(chunk) {
                return (chunk, .whole(isHole ? .hole : .zeros, [Stamp](repeating: 0, count: place.count)))
            }
            let zeros = [Stamp](repeating: 0, count: range.count)
            return (chunk, .part(start: range.lowerBound - chunk * place.count, zeros))
        }
    }

    // MARK: The reference

    /// Writes down what a call did.
    func apply(_ edits: [(chunk: Int, edit: Edit)], _ place: Place, except superseded: Set<Int> = []) {
        for (chunk, edit) in edits where !superseded.contains(chunk) {
            var written = place.pile.versions[place.source.version]?[chunk] ?? Written()
            switch edit {
            case .whole(let kind, let stamps):
                written = Written(whole: kind)
                for (sector, stamp) in stamps.enumerated() where stamp != 0 { written.sectors[sector] = stamp }
                note(stamps, place.pile.account)
            case .part(let start, let stamps):
                for (sector, stamp) in stamps.enumerated() {
                    if let old = written.sectors.updateValue(stamp, forKey: start + sector) {
                        written.covered.insert(old)
                    }
                }
                written.hasParts = true
                note(stamps, place.pile.account)
            }
            place.pile.versions[place.source.version, default: [:]][chunk] = written
        }
    }

    func note(_ stamps: [Stamp], _ account: AccountID) {
        for stamp in stamps where stamp != 0 { world.writers[stamp, default: []].insert(account) }
    }

    // MARK: Tokens

    /// Of `either` the answer depends on what the background has done so far, or on whether a promise ends before the call. Nothing
    /// after it may, or a seed's calls would differ from run to run: where it is refused, the bytes are sent; where it is not, nothing
    /// is concluded.
    enum Naming { case known, unknown, either }

    /// Whether the answer to a call that names so depends on the calls alone.
    static func isSure(_ namings: [Naming]) -> Bool { namings.contains(.unknown) || !namings.contains(.either) }

    /// Whether the account can name a chunk in a volume with chunks of a size, and `room` sectors for it: what it never wrote, never;
    /// what it shows as a whole, or was promised, always.
    func naming(_ chunk: ModelContents.Chunk, _ account: AccountID, _ size: ChunkSize, room: Int? = nil) -> Naming {
        if chunk.size != size { return .unknown }
        if let room, !chunk.stamps[room...].allSatisfy({ $0 == 0 }) { return .unknown }
        if chunk.stamps.contains(where: { $0 != 0 && world.writers[$0]?.contains(account) != true }) { return .unknown }
        if promises[account]?[chunk.fingerprint] ?? 0 > latest { return .known }
        let sources =
            volumes(of: account, local: false).map(world.source)
            + snapshots(of: account).filter { !$0.isError }.map(world.source)
        for source in sources where source.pile.chunkSize == size {
            for place in activeChunks(source) {
                let shown = source.show(place)
                guard shown.whole == .data, !shown.hasParts, shown.stamps == chunk.stamps else { continue }
                if shown.writers.allSatisfy({ $0.account == account }) { return .known }
            }
        }
        return .either
    }

    /// - Parameter end: at the earliest: it counts from some time in this step.
    func promise(_ fingerprint: Fingerprint, to account: AccountID, until end: UInt64) {
        promises[account, default: [:]][fingerprint] = max(end, promises[account]?[fingerprint] ?? 0)
        mayHold(fingerprint, for: account, until: end + configuration.driftMilliseconds)
    }

    /// When a lease or pin that a call began ends, at the earliest; throws where its answer tells another time.
    func leaseEnd(told: UInt64, after milliseconds: UInt64) throws -> UInt64 {
        let ends = earliest + milliseconds...latest + milliseconds
        try check(ends.contains(told), "it lasts until \(told) instead of \(ends)")
        return ends.lowerBound
    }

    func mayHold(_ fingerprint: Fingerprint, for account: AccountID, until end: UInt64) {
        holds[account, default: [:]][fingerprint] = max(end, holds[account]?[fingerprint] ?? 0)
    }
}
