internal import CairnCore
internal import CairnCrypto

extension Backup {
    /// What a run works on.
    private struct Plan {
        let snapshot: SnapshotID
        let dataVersion: DataVersion
        /// What was reported of it before.
        let progress: Int
        /// Bytes.
        let size: UInt64
        let resumed: Bool
        var expected = 0
        var missing: UInt64 = 0
        /// What a scan found; nil: everything is compared.
        var scan: Scan?
    }
    private struct Scan {
        let changes: SourceChanges
        let seal: Fingerprint
        let progress: TransferProgress
    }
    /// What an upload found.
    private struct Upload {
        let progress: TransferProgress
        let seal: Fingerprint
        let sourceBytes: UInt64
        /// Whether all of the source was compared with the snapshot.
        let isWhole: Bool
    }

    /// Runs the backup. Cancelling the task stops it cleanly, and leaves the snapshot in progress.
    /// - Throws: `invalidRequest` where the volume is not LOCAL, is smaller than the source, or has a snapshot in progress;
    ///   `source` where the source cannot be read, or changed under a backup that took it for frozen: the snapshot is
    ///   cancelled then; `damaged` where the server's seal is another than that of what was read; and what calls throw.
    public func run() async throws(ClientError) -> BackupSummary {
        let clock = ContinuousClock()
        let start = clock.now
        let facts = try await client.serverFacts()
        let volume = try await client.describeVolume(self.volume)
        try check(volume)
        let perCall = min(facts.maxBlocksPerCall, facts.maxTokensPerCall)
        let plan = try await plan(volume, chunksPerCall: perCall)
        made(plan.snapshot)
        // The volume may have grown since the snapshot was begun.
        let layout = PieceLayout(chunkSize: volume.chunkSize, volumeSize: plan.size, chunksPerCall: perCall)
        let upload = try await upload(plan, layout)
        try await checkMissing(plan)
        let (result, last, rebased) = try await complete(plan, upload, layout)
        let sealCheck = try await checkSeal(of: plan.snapshot, result, own: last.seal)
        return BackupSummary(
            snapshot: plan.snapshot,
            dataVersion: plan.dataVersion,
            resumed: plan.resumed,
            expected: plan.expected,
            missingAtStart: plan.missing,
            rebased: rebased,
            progress: last.progress,
            volumeSize: plan.size,
            chunkSize: volume.chunkSize,
            sourceBytes: last.sourceBytes,
            seal: last.seal,
            sealCheck: sealCheck,
            duration: clock.now - start
        )
    }

    private func check(_ volume: Volume) throws(ClientError) {
        guard volume.kind == .local else {
            throw ClientError(
                .invalidRequest,
                "\(volume.id) is a REMOTE volume: a backup needs a LOCAL one, an import a REMOTE one"
            )
        }
        if let needed = source.volumeSize, needed > volume.size {
            throw SourceCursor.tooLong(source.name, volume: volume.size)
        }
    }

    // MARK: The snapshot

    /// Finds the snapshot to go on with, or makes a new one.
    private func plan(_ volume: Volume, chunksPerCall: Int) async throws(ClientError) -> Plan {
        // One at 100 waits for an ancestor: it takes no more data.
        let unfinished = try await client.snapshots(of: volume.id, state: .inProgress).all()
            .filter { $0.progress < 100 }
            .min { $0.dataVersion < $1.dataVersion }
        if let unfinished {
            guard case .resume = options.unfinished else {
                throw ClientError(
                    .invalidRequest,
                    "\(unfinished.id) of \(volume.id) is still in progress: go on with it, or delete it"
                )
            }
            if let needed = source.volumeSize, needed > unfinished.size {
                throw ClientError(
                    .invalidRequest,
                    "\(source.name) is larger than \(unfinished.id), which is still in progress: delete that one"
                )
            }
            return Plan(
                snapshot: unfinished.id,
                dataVersion: unfinished.dataVersion,
                progress: unfinished.progress,
                size: unfinished.size,
                resumed: true,
                missing: unfinished.missing
            )
        }
        let layout = PieceLayout(
            chunkSize: volume.chunkSize,
            volumeSize: volume.size,
            chunksPerCall: chunksPerCall
        )
        let scan = try await scan(volume, layout)
        var new = NewSnapshot()
        new.note = options.note
        new.tags = options.tags
        new.expected = scan?.changes.placements ?? []
        let made = try await client.createSnapshot(of: volume.id, new)
        return Plan(
            snapshot: made.id,
            dataVersion: made.dataVersion,
            progress: 0,
            size: volume.size,
            resumed: false,
            expected: new.expected.count,
            missing: UInt64(new.expected.count),
            scan: scan
        )
    }

    /// Looks through the source for what changed since the last snapshot. Nil where that would not help: the source is in
    /// use, a stream, too much changed, or the last snapshot is gone, so that there is nothing to compare with.
    private func scan(_ volume: Volume, _ layout: PieceLayout) async throws(ClientError) -> Scan? {
        guard options.isFrozen, source.size != nil else { return nil }
        var base: Snapshot?
        for try await snapshot in client.snapshots(of: volume.id, state: .complete)
        where snapshot.dataVersion.next == volume.dataVersion { base = snapshot }
        guard let base, base.size == volume.size else { return nil }
        let counter = begin(.scanning)
        let scan = SourceScan(limit: Client.mostExpectedChunks)
        let destination = UploadDestination(comparing: .snapshot(base.id), of: volume.id)
        let run = try await run(layout, destination, counter, .scan(scan))
        guard let changes = scan.changes(chunkSize: layout.chunkSize) else { return nil }
        return Scan(changes: changes, seal: run.seal, progress: counter.value)
    }

    // MARK: The data

    private func upload(_ plan: Plan, _ layout: PieceLayout) async throws(ClientError) -> Upload {
        guard let scan = plan.scan else { return try await uploadWhole(plan, layout) }
        let counter = begin(.uploading)
        counter.update { $0.total = scan.changes.bytes }
        do throws(ClientError) {
            _ = try await run(layout, destination(plan, layout, counter), counter, .changes(scan.changes))
        } catch {
            stopAnswering(plan)
            // What was expected cannot come any more.
            if error.code == .source { try? await cancelSnapshot() }
            throw error
        }
        stopAnswering(plan)
        var progress = counter.value
        progress.total = layout.volumeSize
        progress.done = layout.volumeSize
        progress.zero = scan.progress.zero
        progress.inPlace = scan.progress.inPlace
        return Upload(progress: progress, seal: scan.seal, sourceBytes: source.size ?? 0, isWhole: false)
    }

    /// Compares all of the source with what the snapshot holds, and sends what differs.
    private func uploadWhole(_ plan: Plan, _ layout: PieceLayout) async throws(ClientError) -> Upload {
        let counter = begin(.uploading)
        counter.update { $0.total = layout.volumeSize }
        defer { stopAnswering(plan) }
        let run = try await run(layout, destination(plan, layout, counter), counter, .everything)
        return Upload(progress: counter.value, seal: run.seal, sourceBytes: run.sourceEnd, isWhole: true)
    }

    private func destination(_ plan: Plan, _ layout: PieceLayout, _ counter: TransferCounter) -> UploadDestination {
        let known = UInt32(clamping: plan.progress)
        client.prompts.answer(for: plan.snapshot) { max(known, UInt32(counter.value.percent ?? 0)) }
        return UploadDestination(
            snapshot: plan.snapshot,
            of: volume,
            dataVersion: plan.dataVersion,
            progress: plan.progress
        )
    }

    private func stopAnswering(_ plan: Plan) { client.prompts.noLongerAnswer(for: plan.snapshot) }

    private func run(
        _ layout: PieceLayout,
        _ destination: UploadDestination,
        _ counter: TransferCounter,
        _ mode: ImportRun.Mode
    ) async throws(ClientError) -> ImportRun {
        if counter.value.total == nil { counter.update { $0.total = layout.volumeSize } }
        let run = ImportRun(
            source: source,
            destination: destination,
            layout: layout,
            counter: counter,
            caller: client.caller,
            memory: options.memory,
            mode: mode
        )
        try await run.run(workers: options.workers ?? Threads.processors)
        return run
    }

    // MARK: The end

    /// All is sent: what the service still expects is not in the source any more.
    private func checkMissing(_ plan: Plan) async throws(ClientError) {
        guard try await client.describeSnapshot(plan.snapshot).missing > 0 else { return }
        var missing = client.missingBlocks(of: plan.snapshot).makeAsyncIterator()
        guard let first = try await missing.next(isolation: nil) else { return }
        throw ClientError(
            .source,
            "\(source.name) is not any more what this backup began with, at offset \(first.offset): delete "
                + "\(plan.snapshot) and begin anew"
        )
    }

    /// Reports 100. Where the service asks for a declaration that nothing is missing (SPEC S4), it is made when it is true:
    /// after all of the source was compared with the snapshot.
    private func complete(
        _ plan: Plan,
        _ upload: Upload,
        _ layout: PieceLayout
    ) async throws(ClientError) -> (SnapshotProgressResult, Upload, rebased: Bool) {
        do throws(ClientError) {
            let needsRebase = plan.resumed ? try await client.describeSnapshot(plan.snapshot).needsRebase : false
            let rebased = needsRebase && upload.isWhole
            let result = try await client.reportProgress(100, of: plan.snapshot, rebased: rebased)
            return (result, upload, rebased)
        } catch {
            guard error.answer?.reason == .needsRebase, source.size != nil else { throw error }
        }
        let whole = try await uploadWhole(plan, layout)
        return (try await client.reportProgress(100, of: plan.snapshot, rebased: true), whole, true)
    }

    /// - Throws: `damaged` where the seals differ.
    private func checkSeal(
        of snapshot: SnapshotID,
        _ result: SnapshotProgressResult,
        own: Fingerprint
    ) async throws(ClientError) -> BackupSummary.SealCheck {
        beginSealing()
        guard result.state == .complete else { return .waiting }
        let seal: Fingerprint
        if case .value(let value) = result.seal {
            seal = value
        } else {
            guard try await !client.describeSnapshot(snapshot).isSealWithheld else { return .withheld }
            seal = try await client.seal(of: snapshot, within: options.sealLimit)
        }
        guard seal == own else {
            throw ClientError(.damaged, "\(snapshot) has the seal \(seal), what was read has \(own)")
        }
        return .matched
    }
}
