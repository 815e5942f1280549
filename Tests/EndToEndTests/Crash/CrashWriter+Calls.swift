import CairnCore
import CairnTesting
import CairnWire

extension CrashWriter {
    // MARK: Bytes

    func write(durability: Wire.Durability) async throws {
        let place = random.below(volumes.count)
        let (uploads, changes) = makeBlocks(for: volumes[place])
        volumes[place].send(changes)
        began("\(durability) volume \(place): \(text(changes))")
        guard try await isTaken({ try await caller.upload(volumes[place].id, uploads, durability: durability) }) else {
            return volumes[place].takeBack()
        }
        if durability == .durable { volumes[place].settle() }
        acknowledged()
    }

    func flush() async throws {
        let place = random.below(volumes.count)
        began("flush \(place)")
        try await caller.flush(volumes[place].id)
        volumes[place].settle()
        acknowledged()
    }

    /// One to three blocks, each in a part of the image of its own.
    private func makeBlocks(for subject: Subject) -> ([Upload], [Change]) {
        let stamp = nextStamp()
        let parts = 4
        let part = Self.imageSectors / parts
        var (uploads, changes): ([Upload], [Change]) = ([], [])
        for index in 0..<parts where changes.isEmpty && index == parts - 1 || random.chance(40) {
            var (first, count) = (random.below(part - 24), 1 + random.below(24))
            if random.chance(30) {
                // Whole chunks.
                first = first / subject.chunkSectors * subject.chunkSectors
                count = random.chance(20) ? part - first : subject.chunkSectors
            }
            first += index * part
            let offset = UInt64(first * Picture.sector)
            let kind = random.below(12)
            let isBlank = kind < 2
            let cells = (first..<first + count).map {
                isBlank ? Cell.zero : Cell(stamp: stamp, place: subject.image | UInt64($0))
            }
            let length = UInt32(count * Picture.sector)
            changes.append(Change(first: first, cells: cells))
            switch kind {
            case 0: uploads.append(.zeros(offset, length))
            case 1: uploads.append(.hole(offset, length))
            case 2..<6 where count == subject.chunkSectors && first.isMultiple(of: count):
                uploads.append(.lz4(offset, Picture.bytes(cells[...])))
            default: uploads.append(.plain(offset, Picture.bytes(cells[...])))
            }
        }
        return (uploads, changes)
    }

    /// False where the server said that it is full: then it did nothing of the call.
    private func isTaken<Answer>(_ call: () async throws -> Answer) async throws -> Bool {
        do {
            _ = try await call()
            return true
        } catch let error as CallError where error.reason == .storeFull {
            counts.refusedAsFull += 1
            ledger.note("refused: \(error.reason)")
            try await Task.sleep(for: .milliseconds(20))
            return false
        }
    }

    private func text(_ changes: [Change]) -> String {
        changes.map { "\($0.first)+\($0.cells.count)=\($0.cells[0])" }.joined(separator: " ")
    }

    // MARK: Chunks by token

    func stage() async throws {
        let subject = volumes[random.below(volumes.count)]
        let (stamp, image) = (nextStamp(), nextImage())
        let cells = (0..<subject.chunkSectors).map { Cell(stamp: stamp, place: image | UInt64($0)) }
        let bytes = Picture.bytes(cells[...])
        began("stage \(cells[0])")
        let isStaged = try await isTaken {
            try await caller.stage([bytes], chunkSize: subject.chunkSize, near: subject.id)
        }
        guard isStaged else { return }
        staged.append((Content.token(bytes, chunkSize: Int(subject.chunkSize)), cells, subject.chunkSize))
        if staged.count > 6 { staged.removeFirst() }
        acknowledged()
    }

    /// U7: its lease keeps a staged chunk, also over a crash.
    func placeStaged() async throws {
        let place = random.below(volumes.count)
        guard let chunk = staged.last(where: { $0.chunkSize == volumes[place].chunkSize }) else { return }
        let index = random.below(Self.imageSectors / chunk.cells.count)
        let change = Change(first: index * chunk.cells.count, cells: chunk.cells)
        volumes[place].send([change])
        began("token volume \(place): \(text([change]))")
        let upload = Upload.token(UInt64(index) * UInt64(chunk.chunkSize), chunk.token, length: chunk.chunkSize)
        do {
            guard try await isTaken({ try await caller.upload(volumes[place].id, upload) }) else {
                return volumes[place].takeBack()
            }
        } catch let error as CallError where error.reason == .invalidChunkToken {
            throw Loss("\(name): a staged chunk is gone within its lease: \(error)")
        }
        volumes[place].settle()
        acknowledged()
    }

    // MARK: Reading

    /// C6: what was answered is there, flushed or not.
    func readBack() async throws {
        let all = volumes + snapshots
        let subject = all[random.below(all.count)]
        let first = random.below(Self.imageSectors - 64)
        let range = UInt64(first * Picture.sector)..<UInt64((first + 64) * Picture.sector)
        let bytes = try await caller.download(subject.target, [range]).bytes
        guard bytes == Picture.bytes(subject.latest.cells[first..<first + 64]) else {
            throw Loss("\(name): reads other bytes than it wrote, at sector \(first) of \(subject.target)")
        }
    }

    // MARK: A LOCAL volume's snapshots

    func backUp() async throws {
        if oldBackup != nil { return try await carryOut(.deleteBackup(key: nextKey())) }
        guard let open = local?.open else { return try await carryOut(.beginLocal(key: nextKey())) }
        if random.chance(25) { return try await carryOut(.completeLocal) }
        let (uploads, changes) = makeBlocks(for: open)
        local!.open!.send(changes)
        began("backup: \(text(changes))")
        guard try await isTaken({ try await caller.upload(to: open.target, uploads) }) else {
            return local!.open!.takeBack()
        }
        local!.open!.settle()
        acknowledged()
    }

    // MARK: Deeds

    /// The first time, or again after a crash.
    func carryOut(_ deed: Deed) async throws {
        self.deed = deed
        began("\(deed)")
        if try await isTaken({ try await perform(deed) }) { acknowledged() }
        // What is refused as full was not done, not now and not before: the key would have given the first answer.
        self.deed = nil
    }

    private func perform(_ deed: Deed) async throws {
        switch deed {
        case .snapshot(let volume, let key):
            let made = try await caller.createSnapshot(volumes[volume].id, key: key)
            volumes[volume].settle()
            let content = volumes[volume].latest
            snapshots.append(subject(snapshot: made.snapshotID, volumes[volume].chunkSize, content))
        case .clone(let snapshot, let key):
            let origin = snapshots[snapshot]
            let id = try await caller.clone(origin.id, key: key)
            volumes.append(
                Subject(.volumeID(id), id, image: nextImage(), chunkSize: origin.chunkSize, holding: origin.latest)
            )
        case .deleteSnapshot(let snapshot, let key):
            try await caller.deleteSnapshot(snapshots[snapshot].id, key: key)
            snapshots.remove(at: snapshot)
        case .deleteVolume(let volume, let key):
            try await caller.deleteVolume(volumes[volume].id, key: key)
            volumes.remove(at: volume)
        case .beginLocal(let key):
            let made = try await caller.begin(local!.volume) { $0.idempotencyKey = key }
            let content = local!.base?.latest ?? Picture(sectors: Self.imageSectors)
            local!.open = subject(snapshot: made.snapshotID, 65536, content)
        case .completeLocal:
            let answer = try await caller.progress(local!.open!.id, 100)
            guard answer.state == .complete else {
                throw Loss("\(name): progress 100 left the snapshot \(answer.state)")
            }
            oldBackup = local!.base?.id
            (local!.base, local!.open) = (local!.open, nil)
        case .deleteBackup(let key):
            try await caller.deleteSnapshot(oldBackup!, key: key)
            oldBackup = nil
        }
    }

    private func subject(snapshot id: [UInt8], _ chunkSize: UInt32, _ content: Picture) -> Subject {
        Subject(.snapshotID(id), id, image: nextImage(), chunkSize: chunkSize, holding: content)
    }
}
