import CairnCore
import CairnCrypto
import CairnStore
import CairnTesting
import CairnWire
import Testing

@testable import CairnService

/// Random calls against ``LocalModel``: every answer, every refusal and every byte must be the model's, also after restarts.
@Suite struct LocalModelTests {
    @Test(
        "S3, S4, S5, S8, S9, S11, V3, V5, V9: random volumes, snapshots and clones hold what the model says",
        arguments: [1, 2, 3, 104, 117, 142] as [UInt64]
    )
    func random(seed: UInt64) throws {
        var run = try LocalModelRun(seed: seed)
        for round in 0..<6 {
            for _ in 0..<60 { try run.step() }
            try run.compareAll()
            if round.isMultiple(of: 2) { try run.restart() }
        }
        try run.compareAll()
        try run.removeAll()
    }
}

struct LocalModelFailure: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

struct LocalModelRun {
    /// What was done last.
    private var last = ""
    private var harness: ServiceHarness
    private var model = LocalModel()
    private var random: SeededRandom
    /// Of each byte value: the token of the staged chunk that is full of it.
    private var tokens: [UInt8: [UInt8]] = [:]
    private var idleTimes: UInt64 = 0

    init(seed: UInt64) throws {
        harness = try ServiceHarness(chunkSize: LocalModel.chunk, shards: 2) { store, _ in
            store.leaseTime = .seconds(3)
        }
        random = SeededRandom(seed: seed)
        for value in 1...5 as ClosedRange<UInt8> {
            let bytes = [UInt8](repeating: value, count: LocalModel.chunk)
            var request = Wire.UploadBlockRequest()
            request.blocks = [ServiceHarness.block(bytes, at: 0)]
            tokens[value] = try harness.upload(request, payload: bytes).chunks[0].token
        }
    }

    mutating func restart() throws {
        harness = try ServiceHarness(restarting: harness) { store, _ in store.leaseTime = .seconds(3) }
    }

    mutating func step() throws {
        let choice = Int.random(in: 0..<100, using: &random)
        last = "after choice \(choice)"
        switch choice {
        case 0..<8: try createVolume()
        case 8..<24: try createSnapshot()
        case 24..<54: try upload()
        case 54..<68: try report()
        case 68..<78: try write()
        case 78..<86: try deleteSnapshot()
        case 86..<89: try deleteVolume()
        case 89..<91: try idle()
        default: try compareOne()
        }
    }

    private mutating func pick<Item>(_ items: [Item]) -> Int? {
        items.isEmpty ? nil : Int.random(in: items.indices, using: &random)
    }

    private mutating func place() -> (sectors: Range<Int>, value: UInt8) {
        let start = Int.random(in: 0..<LocalModel.sectors, using: &random)
        let end = min(LocalModel.sectors, start + Int.random(in: 1...12, using: &random))
        // Whole chunks often: their entries stand alone.
        let isWhole = Bool.random(using: &random)
        let range = isWhole ? start / 8 * 8..<start / 8 * 8 + 8 : start..<end
        return (range, UInt8.random(in: 0...5, using: &random))
    }

    // MARK: Volumes

    private mutating func createVolume() throws {
        guard model.volumes.count < 8 else { return }
        var request = Wire.CreateVolumeRequest(size: 1 << 20, chunkSize: UInt32(LocalModel.chunk))
        request.kind = Bool.random(using: &random) ? .local : .remote
        var parent: (Int, UInt64)?
        if let source = pick(model.snapshots), Int.random(in: 0..<4, using: &random) > 0 {
            let snapshot = model.snapshots[source]
            request.snapshotID = snapshot.id
            guard snapshot.isVisible else {
                #expect(refusal { try harness.createVolume(request) }?.code == .failedPrecondition)
                return
            }
            parent = (snapshot.lineage, snapshot.version)
        }
        let created = try harness.createVolume(request)
        model.lineages.append(.init(parent: parent))
        let lineage = model.lineages.count - 1
        model.volumes.append(
            .init(
                id: created.volumeID,
                isLocal: request.kind == .local,
                lineage: lineage,
                version: created.dataVersion
            )
        )
    }

    private mutating func deleteVolume() throws {
        guard let index = pick(model.volumes) else { return }
        let volume = model.volumes[index]
        let inProgress = model.snapshots.contains { $0.volume == volume.id && $0.isVisible && !model.isComplete($0) }
        let cancels = Bool.random(using: &random)
        let call = { [harness] in
            try harness.call(harness.service.deleteVolume, .init(volumeID: volume.id, cancelSnapshots: cancels))
        }
        if inProgress, !cancels {
            #expect(refusal { try call() }?.code == .failedPrecondition)
            return
        }
        _ = try call()
        for snapshot in model.snapshots.indices.reversed() where model.snapshots[snapshot].volume == volume.id {
            let record = model.snapshots[snapshot]
            if record.isVisible, !model.isComplete(record) { model.remove(snapshot) }
        }
        model.volumes.remove(at: index)
    }

    /// To a REMOTE volume.
    private mutating func write() throws {
        guard let index = pick(model.volumes) else { return }
        let volume = model.volumes[index]
        let (sectors, value) = place()
        let bytes = [UInt8](repeating: value, count: sectors.count * 512)
        if volume.isLocal {
            let error = refusal { try harness.write(bytes, at: UInt64(sectors.lowerBound) * 512, to: volume.id) }
            #expect(error?.code == .wrongVolumeKind)
            return
        }
        try harness.write(bytes, at: UInt64(sectors.lowerBound) * 512, to: volume.id)
        model.write(sectors, value, volume.lineage, volume.version)
    }

    // MARK: Snapshots

    private mutating func createSnapshot() throws {
        guard model.snapshots.count < 24, let index = pick(model.volumes) else { return }
        let volume = model.volumes[index]
        var request = Wire.CreateSnapshotRequest(volumeID: volume.id)
        var listed: [(chunk: Int, value: UInt8)] = []
        if volume.isLocal, Bool.random(using: &random) {
            for chunk in 0..<LocalModel.chunks where Bool.random(using: &random) {
                let value = UInt8.random(in: 1...5, using: &random)
                listed.append((chunk, value))
                request.chunks.append(
                    .init(offset: UInt64(chunk * LocalModel.chunk), token: try #require(tokens[value]))
                )
            }
        }
        let created = try harness.call(harness.service.createSnapshot, request)
        #expect(created.dataVersion == volume.version)
        let snapshot = LocalModel.Snapshot(
            id: created.snapshotID,
            volume: volume.id,
            lineage: volume.lineage,
            version: volume.version,
            isPending: volume.isLocal
        )
        model.snapshots.append(snapshot)
        model.volumes[index].version += 1
        if volume.isLocal { model.lineages[volume.lineage].incomplete.insert(snapshot.version) }
        for (chunk, value) in listed {
            model.write(chunk * 8..<chunk * 8 + 8, value, volume.lineage, snapshot.version)
        }
        #expect(created.state == (model.isComplete(snapshot) ? .complete : .inProgress))
    }

    /// Why a call that changes a snapshot is to be refused; nil: it is not.
    private func expectedRefusal(_ index: Int, outOfTurn: ServiceError.Code) -> ServiceError.Code? {
        let snapshot = model.snapshots[index]
        if !snapshot.isVisible { return .failedPrecondition }
        if !snapshot.isPending { return .snapshotAlreadyComplete }
        return model.earliest(of: snapshot.volume) == index ? nil : outOfTurn
    }

    private mutating func upload() throws {
        guard let index = pick(model.snapshots) else { return }
        let snapshot = model.snapshots[index]
        let (sectors, value) = place()
        let rebased = Int.random(in: 0..<8, using: &random) == 0
        let bytes = [UInt8](repeating: value, count: sectors.count * 512)
        let call = { [harness] in
            try harness.upload(bytes, at: UInt64(sectors.lowerBound) * 512, to: snapshot.id) { $0.rebased = rebased }
        }
        if let code = expectedRefusal(index, outOfTurn: .invalidDataVersion) {
            #expect(refusal { try call() }?.code == code)
            return
        }
        #expect(try call().dataVersion == snapshot.version)
        model.write(sectors, value, snapshot.lineage, snapshot.version)
        if rebased { model.snapshots[index].needsRebase = false }
    }

    private mutating func report() throws {
        guard let index = pick(model.snapshots) else { return }
        let snapshot = model.snapshots[index]
        let rebased = Bool.random(using: &random)
        let call = { [harness] in try harness.report(100, snapshot.id, rebased: rebased) }
        var refused = expectedRefusal(index, outOfTurn: .invalidSnapshotID)
        if refused == nil, snapshot.needsRebase, !rebased { refused = .needsRebase }
        if let refused, refused != .snapshotAlreadyComplete {
            #expect(refusal { try call() }?.code == refused)
            return
        }
        let answer = try call()
        if snapshot.isPending { model.complete(index) }
        #expect(answer.percent == 100)
        #expect(answer.state == (model.isComplete(model.snapshots[index]) ? .complete : .inProgress))
    }

    private mutating func deleteSnapshot() throws {
        guard let index = pick(model.snapshots) else { return }
        try harness.delete(model.snapshots[index].id)
        model.remove(index)
    }

    /// Everything that is the earliest of its volume has been idle for too long.
    private mutating func idle() throws {
        let earliest = model.volumes.compactMap { model.earliest(of: $0.id) }
        // What was touched by the last time has been idle since.
        idleTimes += 1
        harness.service.cancelIdleSnapshots(at: UnixTime.milliseconds + idleTimes * 100 * 3600 * 1000)
        for index in earliest {
            let id = model.snapshots[index].id
            #expect(try harness.eventually { try harness.describe(id).state == .error })
            model.remove(index, isError: true)
        }
    }

    // MARK: Comparing

    private static func bytes(_ sectors: [UInt8]) -> [UInt8] {
        sectors.flatMap { [UInt8](repeating: $0, count: 512) }
    }

    private func compare(_ snapshot: LocalModel.Snapshot) throws {
        let described = try harness.describe(snapshot.id)
        guard snapshot.isVisible else {
            #expect(described.state == .error)
            return
        }
        #expect(described.state == (model.isComplete(snapshot) ? .complete : .inProgress))
        #expect(described.needsRebase == (snapshot.isPending && snapshot.needsRebase))
        try compare(.snapshotID(snapshot.id), snapshot.lineage, snapshot.version)
    }

    private func compare(_ volume: LocalModel.Volume) throws {
        if volume.isLocal { return }
        try compare(.volumeID(volume.id), volume.lineage, volume.version)
    }

    private func compare(_ source: Wire.Target.Target, _ lineage: Int, _ version: UInt64) throws {
        let read = try harness.read(source, 0, UInt64(LocalModel.sectors) * 512)
        let expected = model.read(lineage, version)
        for (sector, value) in expected.enumerated() {
            let found = read[sector * 512..<(sector + 1) * 512]
            guard found.allSatisfy({ $0 == value }) else {
                throw LocalModelFailure(
                    "sector \(sector) of lineage \(lineage) version \(version) is \(found.first!), not \(value): \(last)\n\(model.history(of: sector, lineage))"
                )
            }
        }
    }

    private mutating func compareOne() throws {
        if let index = pick(model.snapshots) { try compare(model.snapshots[index]) }
        if let index = pick(model.volumes) { try compare(model.volumes[index]) }
    }

    func compareAll() throws {
        for snapshot in model.snapshots { try compare(snapshot) }
        for volume in model.volumes { try compare(volume) }
        try harness.audit()
    }

    /// In the end nothing is left, of space either.
    mutating func removeAll() throws {
        for snapshot in model.snapshots {
            guard snapshot.isVisible, model.isComplete(snapshot) else { continue }
            var content = Self.bytes(model.read(snapshot.lineage, snapshot.version))
            content += [UInt8](repeating: 0, count: (1 << 20) - content.count)
            #expect(try harness.sealed(snapshot.id) == ServiceHarness.seal(content, chunkSize: LocalModel.chunk))
        }
        for volume in model.volumes {
            _ = try harness.call(harness.service.deleteVolume, .init(volumeID: volume.id, cancelSnapshots: true))
        }
        let left = try harness.call(harness.service.listSnapshots, .init(page: .init(limit: 1000))).snapshots
        for snapshot in left { try harness.delete(snapshot.snapshotID) }
        _ = try harness.call(harness.service.releaseLease, .init(tokens: Array(tokens.values)))
        let isEmpty = try harness.eventually(60) {
            try harness.store.shards.allSatisfy { shard in
                let report = try shard.audit()
                return report.chunks == 0 && report.entries == 0 && report.snapshots == 0
            }
        }
        let reports = try harness.store.shards.map { try $0.audit() }
        #expect(isEmpty, "\(reports)")
        try harness.audit()
    }
}
