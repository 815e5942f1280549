internal import CairnCore
internal import CairnCrypto
internal import CairnWire
internal import Synchronization

/// One run of an export: the way of each piece from the listing to the sink.
///
///     feed: cut the next piece from the listing
///       └► compare: what is there already is hashed           (a worker)
///            └► DownloadBlock of what is not                  (nobody waits)
///                 └► prove: decompress, checksum, hash        (a worker)
///                      └► write: data, then zeros between
final class ExportRun: Sendable {
    private let target: BlockTarget
    private let isImmutable: Bool
    private let layout: PieceLayout
    private let sink: any ExportSink
    private let counter: TransferCounter
    private let caller: any Caller
    private let checksum: ChecksumAlgorithm
    private let memory: Int
    private let listing: Listing
    private let position = Mutex<UInt64>(0)
    private let leaves: Mutex<SealCollector>
    private let ordered = OrderedOutput()
    private let runnerCell = Mutex<PieceRunner?>(nil)

    init(
        target: BlockTarget,
        isImmutable: Bool,
        layout: PieceLayout,
        sink: any ExportSink,
        counter: TransferCounter,
        caller: any Caller,
        checksum: ChecksumAlgorithm,
        memory: Int
    ) {
        self.target = target
        self.isImmutable = isImmutable
        self.layout = layout
        self.sink = sink
        self.counter = counter
        self.caller = caller
        self.checksum = checksum
        self.memory = memory
        listing = Listing(of: target, chunkSize: layout.chunkSize, size: layout.volumeSize, caller: caller)
        leaves = Mutex(SealCollector(size: layout.volumeSize, chunkSize: layout.chunkSize))
    }

    func run(workers: Int) async throws(ClientError) {
        let runner = PieceRunner(pieces: layout.pieces(in: memory)) { () throws(ClientError) in self.feed() }
        runnerCell.withLock { $0 = runner }
        // The runner's feeder holds this run: the circle ends here.
        defer { runnerCell.withLock { $0 = nil } }
        try await runner.run(workers: workers)
    }

    /// After the run: the seal of what was written.
    var seal: Fingerprint { leaves.withLock { $0.seal() } }

    private var runner: PieceRunner? { runnerCell.withLock { $0 } }

    // MARK: Feeding

    private func feed() -> Feed {
        guard let runner else { return .end }
        return position.withLock { position in
            guard position < layout.volumeSize else { return .end }
            let start = position
            guard let piece = listing.use(for: runner, { self.cut(from: start, &$0) }) else { return .notYet }
            position = piece.span.upperBound
            return .piece { self.compare(piece) }
        }
    }

    /// As much as one call carries, with the zeros that lie before and between; nil: the listing must be longer first.
    private func cut(from start: UInt64, _ map: inout PlacementMap) -> ExportPiece? {
        let known = map.known == layout.volumeSize ? map.known : layout.chunkStart(map.known)
        guard known > start else { return nil }
        var chunks: [ExportPiece.Chunk] = []
        var end = start
        while end < known, chunks.count * layout.chunkSize.bytes < layout.pieceBytes {
            guard let allocated = map.firstAllocated(from: end).map(layout.chunkStart), allocated < known else {
                map.skip(to: known)
                end = known
                break
            }
            let range =
                max(allocated, end)..<min(max(allocated, end) + UInt64(layout.chunkSize.bytes), layout.volumeSize)
            switch map.take(range)[0] {
            case .hole, .zeros: break
            case .chunk(let fingerprint): chunks.append(ExportPiece.Chunk(range: range, expected: fingerprint))
            case .unknown: chunks.append(ExportPiece.Chunk(range: range, expected: nil))
            }
            end = range.upperBound
        }
        return ExportPiece(span: start..<end, chunks: chunks)
    }

    // MARK: A piece's steps

    /// Chunks that are there already need not be fetched.
    private func compare(_ piece: ExportPiece) {
        attempt { () throws(ClientError) in
            if !sink.isOrdered, try sink.mayHold(piece.span) { try findInPlace(piece) }
            guard piece.chunks.contains(where: \.isWanted) else { return try finish(piece) }
            fetch(piece)
        }
    }

    /// Reads as many chunks as are best hashed at once, and looks at them.
    private func findInPlace(_ piece: ExportPiece) throws(ClientError) {
        let size = layout.chunkSize.bytes
        let batch = layout.hashBatch
        let buffer = BufferPool.shared.buffer(capacity: batch * size)
        var read: [(index: Int, bytes: UnsafeRawBufferPointer)] = []
        for index in piece.chunks.indices {
            let range = piece.chunks[index].range
            guard try sink.mayHold(range) else { continue }
            let start = read.count * size
            let room = UnsafeMutableRawBufferPointer(rebasing: buffer.memory[start..<start + range.count])
            guard try sink.read(at: range.lowerBound, into: room) == room.count else { continue }
            read.append((index, UnsafeRawBufferPointer(room)))
            if read.count == batch {
                compare(read, in: piece)
                read = []
            }
        }
        compare(read, in: piece)
        withExtendedLifetime(buffer) {}
    }

    /// What the target holds of the piece's chunks.
    private func compare(_ read: [(index: Int, bytes: UnsafeRawBufferPointer)], in piece: ExportPiece) {
        let fingerprints = SHA256.hash(each: read.map(\.bytes), paddedTo: layout.chunkSize.bytes)
        for (index, held) in zip(read.map(\.index), fingerprints) {
            guard held == piece.chunks[index].expected else {
                // What the listing says must be fetched; what it does not know may be what we hold.
                if piece.chunks[index].expected == nil { piece.chunks[index].held = held }
                continue
            }
            piece.chunks[index].fingerprint = held
            piece.chunks[index].isWanted = false
        }
    }

    /// - Parameter isNaming: whether the server is told what the target holds.
    private func fetch(_ piece: ExportPiece, isNaming: Bool = true) {
        let ranges = piece.wantedRanges
        var request = Wire.DownloadBlockRequest()
        request.target = target.wire
        request.ranges = ranges.map { Wire.ByteRange(offset: $0.offset, length: $0.length) }
        request.acceptedCodecs = [.plain, .lz4]
        request.checksumAlgorithm = checksum.wire
        request.knownTokens = isNaming ? piece.heldTokens.map(\.bytes) : []
        runner?.send(request, over: caller) { (exchange: PieceRunner.Exchange<Wire.DownloadBlockRequest>) in
            self.counter.update { progress in
                progress.wire += exchange.received
                progress.payload += UInt64(exchange.payload?.count ?? 0)
                progress.calls += 1
            }
            let reader = DownloadReader(
                exchange.answer,
                payload: exchange.payload,
                ranges: ranges,
                checkedBy: self.checksum
            )
            self.runner?.add { self.prove(piece, reader) }
        }
    }

    private func prove(_ piece: ExportPiece, _ reader: DownloadReader) {
        attempt { () throws(ClientError) in
            if try piece.unpack(reader, chunkSize: layout.chunkSize, isImmutable: isImmutable) {
                try finish(piece)
            } else {
                for index in piece.chunks.indices { piece.chunks[index].held = nil }
                fetch(piece, isNaming: false)
            }
        }
    }

    private func finish(_ piece: ExportPiece) throws(ClientError) {
        guard sink.isOrdered else { return try write(piece) }
        ordered.hand(piece) { piece in
            self.attempt { () throws(ClientError) in try self.write(piece) }
        }
    }

    private func write(_ piece: ExportPiece) throws(ClientError) {
        guard let runner else { return }
        let goOn = { !runner.isEnded }
        if sink.isOrdered {
            try writeInOrder(piece, goOn: goOn)
        } else {
            try piece.forEachRun { offset, bytes throws(ClientError) in
                try sink.write(at: offset, bytes, goOn: goOn)
            }
            for gap in piece.gaps { try sink.zero(gap, goOn: goOn) }
        }
        piece.buffer = nil
        account(piece)
        runner.pieceDone()
    }

    /// A stream gets all chunks and all gaps, by rising offset.
    private func writeInOrder(_ piece: ExportPiece, goOn: () -> Bool) throws(ClientError) {
        var position = piece.span.lowerBound
        try piece.forEachRun { offset, bytes throws(ClientError) in
            try sink.zero(position..<offset, goOn: goOn)
            try sink.write(at: offset, bytes, goOn: goOn)
            position = offset + UInt64(bytes.count)
        }
        try sink.zero(position..<piece.span.upperBound, goOn: goOn)
    }

    private func account(_ piece: ExportPiece) {
        leaves.withLock { leaves in
            for gap in piece.gaps { leaves.add(zeros: gap) }
            for chunk in piece.chunks { leaves.add([chunk.fingerprint], at: chunk.range) }
        }
        counter.update { progress in
            let length = piece.span.upperBound - piece.span.lowerBound
            let data = piece.chunks.reduce(0) { $0 + UInt64($1.range.count) }
            let wanted = UInt64(piece.wantedBytes)
            progress.done += length
            progress.zero += length - data
            progress.inPlace += data - wanted
            progress.transferred += wanted
        }
    }

    private func attempt(_ body: () throws(ClientError) -> Void) {
        do throws(ClientError) { try body() } catch { runner?.fail(error) }
    }
}
