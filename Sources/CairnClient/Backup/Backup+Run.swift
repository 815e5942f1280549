internal import CairnCore
internal import CairnCrypto

extension Backup {
    /// What a run works on.
    private struct Plan {
        /// As it was when the run began with it.
        let snapshot: Snapshot
        let resumed: Bool
        /// Of the snapshot: its volume may be larger.
        let layout: PieceLayout
        /// The one of all uploads, so that progress never goes back.
        let destination: UploadDestination
        let expected: Int
        /// What a scan found; nil: everything is compared.
        let scan: Scan?

        init(
            _ snapshot: Snapshot,
            resumed: Bool,
            chunksPerCall: Int,
            isSettled: Bool,
            expected: Int = 0,
            scan: Scan? = nil
        ) {
            self.snapshot = snapshot
            self.resumed = resumed
            self.expected = expected
            self.scan = scan
            layout = PieceLayout(
                chunkSize: snapshot.chunkSize,
                volumeSize: snapshot.size,
                chunksPerCall: chunksPerCall
            )
            destination = UploadDestination(
                snapshot: snapshot.id,
                of: snapshot.volume,
                dataVersion: snapshot.dataVersion,
                progress: snapshot.progress,
                isSettled: isSettled
            )
        }
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

    /// Runs the backup. Cancelling the task stops it cleanly, and leaves the snapshot in progress, or complete and not compared.
    /// - Throws: `invalidRequest` where the volume is not LOCAL, is smaller than the source, or has a snapshot in progress, and
    ///   where another backup gets in the way; `source` where the source cannot be read, or changed under a backup that took it
    ///   for frozen: the snapshot is cancelled then; `damaged` where the server's seal is another than that of what was read:
    ///   the snapshot is deleted then; and what calls throw.
    public func run() async throws(ClientError) -> BackupSummary {
        let clock = ContinuousClock()
        let start = clock.now
        let facts = try await client.serverFacts()
        let plan = try await plan(chunksPerCall: min(facts.maxBlocksPerCall, facts.maxTokensPerCall))
        let upload = try await upload(plan)
        try await checkMissing(plan)
        let (result, last, rebased) = try await complete(plan, upload)
        let sealCheck = try await checkSeal(of: plan.snapshot.id, result, own: last.seal)
        return BackupSummary(
            snapshot: plan.snapshot.id,
            dataVersion: plan.snapshot.dataVersion,
            resumed: plan.resumed,
            expected: plan.expected,
            missingAtStart: plan.snapshot.missing,
            rebased: rebased,
            progress: last.progress,
            volumeSize: plan.snapshot.size,
            chunkSize: plan.snapshot.chunkSize,
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

    /// Beginnings that others may thwart before a run gives up.
    private static let mostBeginnings = 3

    /// Finds the snapshot to go on with, or makes a new one.
    private func plan(chunksPerCall: Int) async throws(ClientError) -> Plan {
        for beginning in 1...Backup.mostBeginnings {
            let volume = try await client.describeVolume(self.volume)
            try check(volume)
            if let unfinished = try await unfinished(of: volume) {
                made(unfinished.id)
                let isSettled = try await client.isSettled(volume)
                return Plan(unfinished, resumed: true, chunksPerCall: chunksPerCall, isSettled: isSettled)
            }
            // A scan takes long, and others may come in between once more: only the first beginning has one.
            if let plan = try await begin(volume, chunksPerCall: chunksPerCall, scans: beginning == 1) { return plan }
        }
        throw ClientError(
            .invalidRequest,
            "others make snapshots of \(volume), or let it grow, all the time: one backup of a volume can run at a time"
        )
    }

    /// The snapshot that an earlier run left in progress.
    private func unfinished(of volume: Volume) async throws(ClientError) -> Snapshot? {
        // One at 100 waits for an ancestor: it takes no more data.
        let unfinished = try await client.snapshots(of: volume.id, state: .inProgress).all()
            .filter { $0.progress < 100 }
            .min { $0.dataVersion < $1.dataVersion }
        guard let unfinished else { return nil }
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
        return unfinished
    }

    /// Makes a new snapshot. Nil where the volume is not any more what it was when it was described: the snapshot starts from
    /// something else than the scan has compared with, or has another size, or comes after another backup's. It is deleted then.
    private func begin(_ volume: Volume, chunksPerCall: Int, scans: Bool) async throws(ClientError) -> Plan? {
        let layout = PieceLayout(
            chunkSize: volume.chunkSize,
            volumeSize: volume.size,
            chunksPerCall: chunksPerCall
        )
        let isSettled = try await client.isSettled(volume)
        let scan = scans ? try await scan(volume, layout) : nil
        var new = NewSnapshot()
        new.note = options.note
        new.tags = options.tags
        new.expected = scan?.changes.placements ?? []
        let id = try await client.createSnapshot(of: volume.id, new).id
        made(id)
        let snapshot = try await client.describeSnapshot(id)
        guard snapshot.dataVersion == volume.dataVersion, snapshot.size == volume.size else {
            try await cancelSnapshot()
            return nil
        }
        return Plan(
            snapshot,
            resumed: false,
            chunksPerCall: chunksPerCall,
            isSettled: isSettled,
            expected: new.expected.count,
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
        let destination = UploadDestination(comparing: base.id, of: volume.id)
        let run = try await run(layout, destination, counter, .scan(scan))
        guard let changes = scan.changes(chunkSize: layout.chunkSize) else { return nil }
        return Scan(changes: changes, seal: run.seal, progress: counter.value)
    }

    // MARK: The data

    private func upload(_ plan: Plan) async throws(ClientError) -> Upload {
        guard let scan = plan.scan else { return try await uploadWhole(plan) }
        let counter = begin(.uploading)
        counter.update { $0.total = scan.changes.bytes }
        do throws(ClientError) {
            _ = try await upload(plan, counter, .changes(scan.changes))
        } catch {
            // What was expected cannot come any more.
            if error.code == .source { _ = try? await cancelSnapshot() }
            throw error
        }
        var progress = counter.value
        progress.total = plan.layout.volumeSize
        progress.done = plan.layout.volumeSize
        progress.zero = scan.progress.zero
        progress.inPlace = scan.progress.inPlace
        return Upload(progress: progress, seal: scan.seal, sourceBytes: source.size ?? 0, isWhole: false)
    }

    /// Compares all of the source with what the snapshot holds, and sends what differs.
    private func uploadWhole(_ plan: Plan) async throws(ClientError) -> Upload {
        let counter = begin(.uploading)
        counter.update { $0.total = plan.layout.volumeSize }
        let run = try await upload(plan, counter, .everything)
        return Upload(progress: counter.value, seal: run.seal, sourceBytes: run.sourceEnd, isWhole: true)
    }

    /// Uploads, and meanwhile tells the service how far that is, unasked and when it asks (SPEC S9, S10).
    private func upload(
        _ plan: Plan,
        _ counter: TransferCounter,
        _ mode: ImportRun.Mode
    ) async throws(ClientError) -> ImportRun {
        let (snapshot, destination) = (plan.snapshot.id, plan.destination)
        client.prompts.answer(for: snapshot) {
            UInt32(max(destination.reported, counter.value.percent ?? 0))
        }
        let reporter = Task { await self.report(counter, of: snapshot, destination) }
        defer {
            reporter.cancel()
            client.prompts.noLongerAnswer(for: snapshot)
        }
        return try await run(plan.layout, destination, counter, mode)
    }

    /// Uploads carry reports as well, but there may be none for long: what was reported already keeps the snapshot from being
    /// idle (SPEC S11). Ends when its task is cancelled.
    private func report(_ counter: TransferCounter, of snapshot: SnapshotID, _ destination: UploadDestination) async {
        while true {
            do { try await Task.sleep(for: options.reportInterval) } catch { return }
            guard let percent = destination.beginReport(counter.value) else { continue }
            // A failure is not the backup's: what matters of it, the uploads and the completion meet as well.
            _ = try? await client.reportProgress(percent, of: snapshot)
            destination.endReport()
        }
    }

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
            checksum: client.options.checksum,
            memory: options.memory,
            mode: mode
        )
        try await run.run(workers: options.workers ?? Threads.processors)
        return run
    }

    // MARK: The end

    /// All is sent: the snapshot is still this run's to complete, and what the service expects is in the source.
    private func checkMissing(_ plan: Plan) async throws(ClientError) {
        let snapshot = try await client.describeSnapshot(plan.snapshot.id)
        guard snapshot.progress < 100 else {
            throw ClientError(.invalidRequest, "\(snapshot.id) was completed by another backup meanwhile")
        }
        guard snapshot.missing > 0 else { return }
        var missing = client.missingBlocks(of: snapshot.id).makeAsyncIterator()
        guard let first = try await missing.next(isolation: nil) else { return }
        throw ClientError(
            .source,
            "\(source.name) is not any more what this backup began with, at offset \(first.offset): delete "
                + "\(snapshot.id) and begin anew"
        )
    }

    /// Reports 100. Where the service asks for a declaration that nothing is missing (SPEC S4), it is made when it is true:
    /// after all of the source was compared with the snapshot.
    private func complete(
        _ plan: Plan,
        _ upload: Upload
    ) async throws(ClientError) -> (SnapshotProgressResult, Upload, rebased: Bool) {
        let rebased = plan.snapshot.needsRebase && upload.isWhole
        enter(.completing)
        do throws(ClientError) {
            let result = try await client.reportProgress(100, of: plan.snapshot.id, rebased: rebased)
            return (result, upload, rebased)
        } catch {
            guard error.answer?.reason == .needsRebase, source.size != nil else { throw error }
        }
        let whole = try await uploadWhole(plan)
        enter(.completing)
        return (try await client.reportProgress(100, of: plan.snapshot.id, rebased: true), whole, true)
    }

    /// - Throws: `damaged` where the seals differ: then the snapshot is deleted, for it must not be taken for a good one.
    private func checkSeal(
        of snapshot: SnapshotID,
        _ result: SnapshotProgressResult,
        own: Fingerprint
    ) async throws(ClientError) -> BackupSummary.SealCheck {
        guard result.state == .complete else { return .waiting }
        enter(.sealing)
        var told = result.seal
        if told == nil || told == .pending {
            told = try await client.describeSealed(snapshot, within: options.sealLimit).seal
        }
        guard case .value(let seal) = told else { return .withheld }
        if seal == own { return .matched }
        let outcome: String
        do throws(ClientError) {
            try await deleteSnapshot(unlessWhole: false)
            outcome = "it was deleted"
        } catch {
            outcome = "delete it, for that failed: \(error.text)"
        }
        throw ClientError(.damaged, "\(snapshot) has the seal \(seal), what was read has \(own): \(outcome)")
    }
}
