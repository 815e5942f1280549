internal import CairnCore
internal import CairnWire

/// From the claims to the answered upload.
extension ImportRun {
    /// All of the piece's tasks are set.
    func prepared(_ piece: ImportPiece) {
        if case .scan(let scan) = mode {
            let changed = scan.note(piece)
            // Zeros were counted when they were found.
            counter.update { $0.done += changed }
            return leave(piece)
        }
        let parts = claims.withLock { table -> Int in
            for (chunk, task) in piece.tasks.enumerated() {
                guard case .bring(let fingerprint) = task, !table.claim(fingerprint, waiter: piece) else { continue }
                piece.tasks[chunk] = .await(fingerprint)
                piece.waits += 1
            }
            piece.parts = (piece.hasOwnUpload ? 1 : 0) + (piece.waits > 0 ? 1 : 0)
            return piece.parts
        }
        if parts == 0 { return leave(piece) }
        // A piece that only waits is taken up by whoever it waits for.
        guard piece.hasOwnUpload else { return }
        let wanted = piece.brought
        if wanted.isEmpty { pack(piece, present: []) } else { query(piece, wanted) }
    }

    /// Asks which of the chunks the server has, and pins those.
    private func query(_ piece: ImportPiece, _ wanted: [Fingerprint]) {
        let request = Wire.QueryChunksRequest(tokens: wanted.map(\.bytes), volumeID: destination.volume.bytes)
        send(request) { (answer: Wire.QueryChunksResponse, _) throws(ClientError) in
            let bits = try QueryAnswer.bits(answer, count: wanted.count)
            let present = Set(zip(wanted, bits).filter(\.1).map(\.0))
            self.runner?.add { self.pack(piece, present: present) }
        }
    }

    /// Makes the piece's own upload, and sends it.
    private func pack(_ piece: ImportPiece, present: Set<Fingerprint>) {
        let packer = ChunkPacker(chunkSize: layout.chunkSize, checkedBy: checksum)
        var draft = UploadDraft()
        var named: [Int: Fingerprint] = [:]
        for (chunk, task) in piece.tasks.enumerated() {
            switch task {
            case .nothing, .await: break
            case .zeros: draft.zeros(piece.chunks[chunk])
            case .hole: draft.hole(piece.chunks[chunk])
            case .bring(let fingerprint) where present.contains(fingerprint):
                draft.token(piece.chunks[chunk], fingerprint)
                named[chunk] = fingerprint
            case .bring(let fingerprint): packer.pack(chunk, of: piece, fingerprint, into: &draft)
            }
        }
        upload(draft, of: piece, named: named) {
            self.release(piece)
            self.endPart(of: piece)
        }
    }

    /// Others have brought what the piece waited for: their tokens do.
    private func nameAwaited(_ piece: ImportPiece) {
        var draft = UploadDraft()
        var named: [Int: Fingerprint] = [:]
        for (chunk, task) in piece.tasks.enumerated() {
            guard case .await(let fingerprint) = task else { continue }
            draft.token(piece.chunks[chunk], fingerprint)
            named[chunk] = fingerprint
        }
        upload(draft, of: piece, named: named) { self.endPart(of: piece) }
    }

    /// Sends an upload. A token that the server does not take any more (the lease is over, the chunk was collected) is made up
    /// for by sending that chunk with its bytes; a second one in the same upload, by sending all of its named chunks so.
    private func upload(
        _ draft: UploadDraft,
        of piece: ImportPiece,
        named: [Int: Fingerprint],
        isRepeated: Bool = false,
        then done: @escaping @Sendable () -> Void
    ) {
        var request = Wire.UploadBlockRequest()
        let carriesReport = destination.address(&request, counter.value)
        request.durability = .durable
        request.blocks = draft.blocks
        send(request, payload: draft.payload) { (error: ClientError) -> Bool in
            if carriesReport { self.destination.endReport() }
            guard let answer = error.answer, answer.reason == .invalidChunkToken, !named.isEmpty else { return false }
            let refused = answer.blockIndex.flatMap { $0 < draft.blocks.count ? draft.blocks[$0].offset : nil }
            let lost = isRepeated ? named : named.filter { piece.chunks[$0.key].lowerBound == refused }
            self.runner?.add {
                self.replace(lost.isEmpty ? named : lost, in: draft, of: piece, named: named, then: done)
            }
            return true
        } answered: { (answer: Wire.UploadBlockResponse, _) throws(ClientError) in
            try draft.check(answer)
            if carriesReport { self.destination.endReport() }
            self.counter.update { progress in
                progress.deduplicated += draft.named
                progress.transferred += draft.sent
                progress.payload += draft.payloadBytes
                // Zeros were counted when they were found.
                progress.done += draft.named + draft.sent
            }
            done()
        }
    }

    /// Sends the lost chunks with their bytes, and then what is left of the upload.
    private func replace(
        _ lost: [Int: Fingerprint],
        in draft: UploadDraft,
        of piece: ImportPiece,
        named: [Int: Fingerprint],
        then done: @escaping @Sendable () -> Void
    ) {
        let packer = ChunkPacker(chunkSize: layout.chunkSize, checkedBy: checksum)
        var bytes = UploadDraft()
        for (chunk, fingerprint) in lost.sorted(by: { $0.key < $1.key }) {
            packer.pack(chunk, of: piece, fingerprint, into: &bytes)
        }
        let rest = draft.without(Set(lost.keys.map { piece.chunks[$0].lowerBound }))
        let stillNamed = named.filter { lost[$0.key] == nil }
        upload(bytes, of: piece, named: [:]) {
            guard !rest.isEmpty else { return done() }
            self.upload(rest, of: piece, named: stillNamed, isRepeated: true, then: done)
        }
    }

    /// The piece's chunks are on the server.
    private func release(_ piece: ImportPiece) {
        let ready = claims.withLock { table in
            table.release(piece.brought).filter { waiter in
                waiter.waits -= 1
                return waiter.waits == 0
            }
        }
        for waiter in ready { runner?.add { self.nameAwaited(waiter) } }
    }

    private func endPart(of piece: ImportPiece) {
        let isLast = claims.withLock { _ in
            piece.parts -= 1
            return piece.parts == 0
        }
        if isLast { leave(piece) }
    }

    private func leave(_ piece: ImportPiece) {
        piece.buffer = nil
        runner?.pieceDone()
    }

    /// Makes a call of this run. An error that `recover` does not take ends the run.
    private func send<Message: WireRequest>(
        _ request: Message,
        payload: [BufferSlice] = [],
        recover: @escaping @Sendable (ClientError) -> Bool = { _ in false },
        answered: @escaping @Sendable (Message.Response, BufferSlice?) throws(ClientError) -> Void
    ) {
        runner?.send(request, payload: payload, over: caller, recover: recover) {
            (exchange: PieceRunner.Exchange<Message>) throws(ClientError) in
            self.counter.update { progress in
                progress.wire += exchange.sent
                progress.calls += 1
            }
            try answered(exchange.answer, exchange.payload)
        }
    }
}
