internal import CairnCore
internal import CairnWire
internal import Synchronization

/// One run of an import: the way of each piece from the source to the volume.
///
///     feed: cut the next piece, look up what the volume holds there
///       └► prepare: read, find zeros, hash, compare          (a worker)
///            └► claim; QueryChunks                            (nobody waits)
///                 └► pack: compress what is absent            (a worker)
///                      └► UploadBlock                         (nobody waits)
///                           └► release: who waited for these chunks names them by token
final class ImportRun: Sendable {
    let destination: UploadDestination
    let layout: PieceLayout
    let counter: TransferCounter
    let caller: any Caller
    let checksum: ChecksumAlgorithm
    let claims = Mutex(ClaimTable<ImportPiece>())
    private let source: ImportSource
    private let cursor: Mutex<SourceCursor>
    private let listing: Listing
    private let leaves: Mutex<SealCollector>
    private let memory: Int
    private let runnerCell = Mutex<PieceRunner?>(nil)
    let mode: Mode

    /// What is done about what the source holds.
    enum Mode: Sendable {
        /// All of it goes to the destination.
        case everything
        /// Nothing is sent: what would be is noted.
        case scan(SourceScan)
        /// What a scan has found, and nothing else, goes to the destination.
        case changes(SourceChanges)
    }

    init(
        source: ImportSource,
        destination: UploadDestination,
        layout: PieceLayout,
        counter: TransferCounter,
        caller: any Caller,
        checksum: ChecksumAlgorithm,
        memory: Int,
        mode: Mode = .everything
    ) {
        self.source = source
        self.destination = destination
        self.mode = mode
        self.layout = layout
        self.counter = counter
        self.caller = caller
        self.checksum = checksum
        self.memory = memory
        cursor = Mutex(SourceCursor(source, layout: layout))
        listing = Listing(
            of: destination.listed,
            chunkSize: layout.chunkSize,
            size: layout.volumeSize,
            caller: caller,
            mayBeRefused: true,
            isReliable: destination.isSettled
        )
        leaves = Mutex(SealCollector(size: layout.volumeSize, chunkSize: layout.chunkSize))
    }

    func run(workers: Int) async throws(ClientError) {
        let runner = PieceRunner(pieces: layout.pieces(in: memory)) { () throws(ClientError) in try self.feed() }
        runnerCell.withLock { $0 = runner }
        // The runner's feeder holds this run: the circle ends here.
        defer { runnerCell.withLock { $0 = nil } }
        try await runner.run(workers: workers)
        // It may have been cut where it was taken for a hole already.
        try source.checkSize()
    }

    /// Nil once the run has ended: then what would be done with it does not matter any more.
    var runner: PieceRunner? { runnerCell.withLock { $0 } }

    /// How many bytes the source held.
    var sourceEnd: UInt64 { cursor.withLock { source.size ?? $0.streamEnd ?? 0 } }

    /// After the run: the seal of what is in the volume; of a run over changes it has no meaning.
    var seal: Fingerprint { leaves.withLock { $0.seal() } }

    // MARK: Feeding

    private func feed() throws(ClientError) -> Feed {
        guard let runner else { return .end }
        let result = cursor.withLock { cursor in
            Result { () throws(ClientError) in try feed(from: &cursor, for: runner) }
        }
        return try result.get()
    }

    private func feed(from cursor: inout SourceCursor, for runner: PieceRunner) throws(ClientError) -> Feed {
        while true {
            var end = layout.volumeSize
            switch mode {
            case .everything: break
            case .scan(let scan): if scan.isFull { return .end }
            case .changes(let changes):
                guard let next = changes.next(from: cursor.position) else { return .end }
                cursor.advance(to: next.lowerBound)
                end = next.upperBound
            }
            // What a stream gives is gone from it: so the volume must be known first.
            let horizon = cursor.horizon
            guard listing.use(for: runner, { $0.known >= horizon ? true : nil }) != nil else { return .notYet }
            switch try cursor.look(before: end, goOn: { !runner.isEnded }) {
            case .end: return .end
            case .data(let range, let stored):
                guard let placements = take(range, for: runner) else { return .notYet }
                cursor.advance(to: range.upperBound)
                let piece = ImportPiece(range, placements: placements, layout: layout, buffer: nil)
                return .piece { self.read(piece, stored: stored) }
            case .loaded(let range, let buffer):
                guard let placements = take(range, for: runner) else { return .notYet }
                cursor.advance(to: range.upperBound)
                let piece = ImportPiece(range, placements: placements, layout: layout, buffer: buffer)
                return .piece { self.examine(piece) }
            case .hole(let holeEnd):
                switch hole(cursor.position..<holeEnd, for: runner) {
                case .unknown: return .notYet
                case .empty(let range):
                    cursor.advance(to: range.upperBound)
                    passZeros(range)
                case .filled(let piece):
                    cursor.advance(to: piece.range.upperBound)
                    passZeros(piece.range)
                    return .piece { self.prepared(piece) }
                }
            }
        }
    }

    private func take(_ range: Range<UInt64>, for runner: PieceRunner) -> [Placement]? {
        listing.use(for: runner) { $0.known >= range.upperBound ? $0.take(range) : nil }
    }

    private enum Hole {
        /// The volume is not known here yet.
        case unknown
        /// The volume holds nothing either.
        case empty(Range<UInt64>)
        /// The volume holds something that must go.
        case filled(ImportPiece)
    }

    private func hole(_ range: Range<UInt64>, for runner: PieceRunner) -> Hole {
        let found = listing.use(for: runner) { map -> Hole? in
            let known = map.known == layout.volumeSize ? map.known : layout.chunkStart(map.known)
            let end = min(range.upperBound, known)
            guard end > range.lowerBound else { return nil }
            let allocated = map.firstAllocated(from: range.lowerBound).map(layout.chunkStart) ?? end
            if allocated > range.lowerBound {
                let empty = range.lowerBound..<min(allocated, end)
                map.skip(to: empty.upperBound)
                return .empty(empty)
            }
            let filled = range.lowerBound..<min(end, range.lowerBound + UInt64(layout.pieceBytes))
            return .filled(ImportPiece(filled, placements: map.take(filled), layout: layout, buffer: nil))
        }
        return found ?? .unknown
    }

    private func passZeros(_ range: Range<UInt64>) {
        leaves.withLock { $0.add(zeros: range) }
        counter.update { progress in
            progress.zero += range.upperBound - range.lowerBound
            progress.done += range.upperBound - range.lowerBound
        }
    }

    // MARK: Reading and hashing

    /// Reads in steps, each of as many chunks as are best hashed at once.
    private func read(_ piece: ImportPiece, stored: Int) {
        let count = Int(piece.range.upperBound - piece.range.lowerBound)
        let buffer = BufferPool.shared.buffer(capacity: count)
        buffer.count = count
        piece.buffer = buffer
        let step = layout.hashBatch * layout.chunkSize.bytes
        var leaves: [Fingerprint?] = []
        for start in stride(from: 0, to: count, by: step) {
            guard let runner, !runner.isEnded else { return }
            let end = min(start + step, count)
            do throws(ClientError) {
                try fill(buffer, start..<end, stored: stored, at: piece.range.lowerBound)
            } catch {
                return runner.fail(error)
            }
            let chunks = start / layout.chunkSize.bytes..<(end + layout.chunkSize.bytes - 1) / layout.chunkSize.bytes
            leaves += piece.examine(chunks, chunkSize: layout.chunkSize)
        }
        examined(piece, leaves)
    }

    private func fill(
        _ buffer: Buffer,
        _ range: Range<Int>,
        stored: Int,
        at offset: UInt64
    ) throws(ClientError) {
        let wanted = max(0, min(range.upperBound, stored) - range.lowerBound)
        let target = UnsafeMutableRawBufferPointer(rebasing: buffer.memory[range])
        let read: Int
        do throws(SystemError) {
            read = try source.file.read(
                at: offset + UInt64(range.lowerBound),
                into: UnsafeMutableRawBufferPointer(rebasing: target[0..<wanted])
            )
        } catch {
            throw error.source(source.name)
        }
        guard read == wanted else { throw source.shortened }
        UnsafeMutableRawBufferPointer(rebasing: target[wanted...]).initializeMemory(as: UInt8.self, repeating: 0)
    }

    private func examine(_ piece: ImportPiece) {
        examined(piece, piece.examine(piece.chunks.indices, chunkSize: layout.chunkSize))
    }

    private func examined(_ piece: ImportPiece, _ fingerprints: [Fingerprint?]) {
        if case .changes(let changes) = mode, let offset = changes.surprise(piece, fingerprints) {
            runner?.fail(SourceChanges.moved(source.name, at: offset))
            return
        }
        leaves.withLock { $0.add(fingerprints, at: piece.range) }
        var zero: UInt64 = 0
        var inPlace: UInt64 = 0
        var done: UInt64 = 0
        for (chunk, task) in piece.tasks.enumerated() {
            let length = UInt64(piece.chunks[chunk].count)
            if fingerprints[chunk] == nil { zero += length } else if task == .nothing { inPlace += length }
            if fingerprints[chunk] == nil || task == .nothing { done += length }
        }
        counter.update { [zero, inPlace, done] progress in
            progress.zero += zero
            progress.inPlace += inPlace
            progress.done += done
        }
        prepared(piece)
    }
}
