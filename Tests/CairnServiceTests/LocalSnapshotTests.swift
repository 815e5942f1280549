import CairnCore
import CairnCrypto
import CairnStore
import CairnWire
import Testing

@testable import CairnService

/// Snapshots of LOCAL volumes: what they take, in which order, and what they refuse.
@Suite struct LocalSnapshotTests {
    @Test("V3: a LOCAL volume has no data here: block calls on it are refused; lists belong to its snapshots alone")
    func wrongKind() throws {
        let harness = try ServiceHarness()
        let volume = try harness.localVolume()
        let service = harness.service
        let target = Wire.Target(target: .volumeID(volume))
        let ranges = [Wire.ByteRange(offset: 0, length: 512)]
        let calls: [() throws -> Void] = [
            { try harness.write(noise(512, seed: 1), at: 0, to: volume) },
            { _ = try harness.read(.volumeID(volume), 0, 512) },
            { _ = try harness.call(service.listBlocks, .init(target: target)) },
            { _ = try harness.call(service.flush, .init(volumeID: volume)) },
            { _ = try harness.call(service.writeZeroes, .init(target: target, ranges: ranges)) },
            { _ = try harness.call(service.discard, .init(target: target, ranges: ranges)) },
        ]
        for body in calls { #expect(refusal(body)?.code == .wrongVolumeKind) }
        let remote = try harness.createVolume().volumeID
        let item = Wire.ChunkPlacement(offset: 0, token: ZeroChunk.fingerprint(ChunkSize(bytes: 65536)!).bytes)
        #expect(refusal { try harness.begin(remote) { $0.chunks = [item] } }?.code == .wrongVolumeKind)
        #expect(refusal { try harness.begin(remote) { $0.expected = [item] } }?.code == .wrongVolumeKind)
        #expect(refusal { try harness.begin(remote) { $0.chunkListTokens = [item.token] } }?.code == .wrongVolumeKind)
        let described = try harness.call(service.describeVolume, .init(volumeID: volume)).volume
        #expect(described?.kind == .local && described?.dataVersion == 2)
    }

    @Test("S3, S6, S9, D2: a snapshot starts from the one before, is readable on its way, and is sealed at 100")
    func incremental() throws {
        let harness = try ServiceHarness()
        let volume = try harness.localVolume()
        var content = [UInt8](repeating: 0, count: 1 << 20)
        let first = try harness.begin(volume)
        #expect(first.state == .inProgress && first.dataVersion == 2)
        let start = noise(5 * 65536, seed: 2)
        content.replaceSubrange(65536..<6 * 65536, with: start)
        #expect(try harness.upload(start, at: 65536, to: first.snapshotID).dataVersion == 2)
        #expect(try harness.report(40, first.snapshotID) == .init(state: .inProgress, percent: 40))
        #expect(try harness.describe(first.snapshotID).progress == 40)
        #expect(try harness.read(.snapshotToken(first.snapshotToken), 0, 1 << 20) == content)
        #expect(try harness.report(100, first.snapshotID).state == .complete)
        #expect(try harness.sealed(first.snapshotID) == ServiceHarness.seal(content))
        // C5: the seal again.
        #expect(try harness.report(100, first.snapshotID).seal?.value == ServiceHarness.seal(content))
        let before = content
        let second = try harness.begin(volume)
        #expect(second.dataVersion == 3)
        let part = noise(1024, seed: 3)
        content.replaceSubrange(70_144..<71_168, with: part)
        try harness.upload(part, at: 70_144, to: second.snapshotID) { $0.progress = .init(percent: 100) }
        #expect(try harness.describe(second.snapshotID).state == .complete)
        #expect(try harness.sealed(second.snapshotID) == ServiceHarness.seal(content))
        #expect(try harness.read(.snapshotID(second.snapshotID), 0, 1 << 20) == content)
        #expect(try harness.read(.snapshotID(first.snapshotID), 0, 1 << 20) == before)
        try harness.audit()
    }

    @Test("S4, S9, U5: only the earliest outstanding one takes data and reports; the refusal names it")
    func order() throws {
        let harness = try ServiceHarness()
        let volume = try harness.localVolume()
        let snapshots = try (0..<3).map { _ in try harness.begin(volume).snapshotID }
        let names = try snapshots.map { try #require(SnapshotID(bytes: $0)).description }
        let bytes = noise(512, seed: 4)
        for index in 0..<3 {
            for later in snapshots[(index + 1)...] {
                let upload = refusal { try harness.upload(bytes, at: 0, to: later) }
                #expect(upload?.code == .invalidDataVersion && upload?.text.contains(names[index]) == true)
                for percent: UInt32 in [0, 100] {
                    let report = refusal { try harness.report(percent, later) }
                    #expect(report?.code == .invalidSnapshotID && report?.text.contains(names[index]) == true)
                }
            }
            try harness.upload(noise(512, seed: 10 + UInt64(index)), at: UInt64(index) * 512, to: snapshots[index])
            #expect(try harness.report(100, snapshots[index]).state == .complete)
        }
        for index in 0..<3 {
            let expected = (0..<3).flatMap { part in
                part <= index ? noise(512, seed: 10 + UInt64(part)) : [UInt8](repeating: 0, count: 512)
            }
            #expect(try harness.read(.snapshotID(snapshots[index]), 0, 1536) == expected)
        }
        try harness.audit()
    }

    @Test("S4: when one goes, the next is earliest, without its data, and must be declared rebased before 100")
    func rebase() throws {
        let harness = try ServiceHarness()
        let volume = try harness.localVolume()
        let first = try harness.begin(volume).snapshotID
        let base = noise(65536, seed: 20)
        try harness.upload(base, at: 0, to: first) { $0.progress = .init(percent: 100) }
        let snapshots = try (0..<3).map { _ in try harness.begin(volume).snapshotID }
        try harness.upload(noise(65536, seed: 21), at: 0, to: snapshots[0])
        try harness.delete(snapshots[0])
        #expect(try harness.read(.snapshotID(snapshots[1]), 0, 65536) == base)
        #expect(try snapshots[1...].map { try harness.describe($0).needsRebase } == [true, true])
        let part = noise(512, seed: 22)
        try harness.upload(part, at: 512, to: snapshots[1]) { $0.progress = .init(percent: 50) }
        #expect(refusal { try harness.report(100, snapshots[1]) }?.code == .needsRebase)
        #expect(
            refusal { try harness.upload(part, at: 0, to: snapshots[1]) { $0.progress = .init(percent: 100) } }?.code
                == .needsRebase
        )
        // All or nothing (U2): the refused call wrote nothing.
        #expect(try harness.read(.snapshotID(snapshots[1]), 0, 512) == Array(base[..<512]))
        #expect(try harness.report(100, snapshots[1], rebased: true).state == .complete)
        try harness.upload(part, at: 1024, to: snapshots[2]) { $0.rebased = true }
        #expect(try !harness.describe(snapshots[2]).needsRebase)
        #expect(try harness.report(100, snapshots[2]).state == .complete)
        #expect(
            try harness.read(.snapshotID(snapshots[2]), 0, 65536)
                == Array(base[..<512]) + part + part + Array(base[1536...])
        )
        try harness.audit()
    }

    @Test("S9, U5: progress goes forward from 0 to 100; a complete snapshot takes nothing")
    func refusals() throws {
        let harness = try ServiceHarness()
        let volume = try harness.localVolume()
        let snapshot = try harness.begin(volume).snapshotID
        let bytes = noise(512, seed: 30)
        for wrong: UInt64 in [1, 3, 99] {
            #expect(
                refusal { try harness.upload(bytes, at: 0, to: snapshot) { $0.dataVersion = wrong } }?.code
                    == .invalidDataVersion
            )
        }
        #expect(try harness.upload(bytes, at: 0, to: snapshot) { $0.dataVersion = 2 }.dataVersion == 2)
        try harness.report(30, snapshot)
        try harness.report(30, snapshot)
        for percent: UInt32 in [29, 101, .max] {
            #expect(refusal { try harness.report(percent, snapshot) }?.code == .invalidProgress)
            let upload = refusal {
                try harness.upload(noise(512, seed: 31), at: 0, to: snapshot) { $0.progress = .init(percent: percent) }
            }
            #expect(upload?.code == .invalidProgress)
        }
        #expect(try harness.read(.snapshotID(snapshot), 0, 512) == bytes)
        let attached = refusal { try harness.upload(bytes, at: 0, to: snapshot) { $0.attachment = 1 } }
        #expect(attached?.code == .invalidArgument)
        #expect(refusal { try harness.upload(bytes, at: 0, to: snapshot, as: ServiceHarness.bob) } == .noSuchSnapshot)
        try harness.report(100, snapshot)
        let late: [() throws -> Void] = [
            { try harness.upload(bytes, at: 0, to: snapshot) },
            { try harness.report(99, snapshot) },
            {
                _ = try harness.call(
                    harness.service.discard,
                    .init(target: .init(target: .snapshotID(snapshot)), ranges: [.init(offset: 0, length: 512)])
                )
            },
        ]
        for body in late { #expect(refusal(body)?.code == .snapshotAlreadyComplete) }
        let initial = try harness.createVolume().initialSnapshotID
        #expect(refusal { try harness.upload(bytes, at: 0, to: initial) }?.code == .snapshotAlreadyComplete)
        let remote = try harness.createVolume().volumeID
        for field: (inout Wire.UploadBlockRequest) -> Void in [{ $0.progress = .init() }, { $0.rebased = true }] {
            var request = Wire.UploadBlockRequest(target: .init(target: .volumeID(remote)))
            request.blocks = [ServiceHarness.block(bytes, at: 0)]
            field(&request)
            #expect(refusal { try harness.upload(request, payload: bytes) }?.code == .invalidArgument)
        }
    }

    @Test("V9, S8: a volume with snapshots in progress goes only with them; complete ones stay")
    func deleteVolume() throws {
        let harness = try ServiceHarness { store, _ in store.leaseTime = .milliseconds(10) }
        let volume = try harness.localVolume()
        let complete = try harness.begin(volume).snapshotID
        let bytes = noise(65536, seed: 40)
        try harness.upload(bytes, at: 0, to: complete) { $0.progress = .init(percent: 100) }
        let outstanding = try (0..<3).map { _ in try harness.begin(volume).snapshotID }
        try harness.upload(noise(65536, seed: 41), at: 0, to: outstanding[0])
        let delete = { (cancel: Bool) in
            try harness.call(harness.service.deleteVolume, .init(volumeID: volume, cancelSnapshots: cancel))
        }
        let refused = refusal { try delete(false) }
        #expect(refused?.code == .failedPrecondition)
        #expect(refused?.text.contains(try #require(SnapshotID(bytes: outstanding[0])).description) == true)
        _ = try delete(true)
        for snapshot in outstanding { #expect(refusal { try harness.describe(snapshot) } == .noSuchSnapshot) }
        #expect(refusal { try delete(true) } == .noSuchVolume)
        #expect(try harness.read(.snapshotID(complete), 0, 65536) == bytes)
        try harness.delete(complete)
        #expect(try harness.eventually { try harness.store.shards.allSatisfy { try $0.audit().chunks == 0 } })
        try harness.audit()
    }

    @Test("V3: a LOCAL volume made from a snapshot is a restore: its next snapshot is incremental to that one")
    func restore() throws {
        let harness = try ServiceHarness()
        let origin = try harness.createVolume(.init(size: 1 << 20)).volumeID
        let bytes = noise(1 << 20, seed: 50)
        try harness.write(bytes, at: 0, to: origin)
        let source = try harness.begin(origin).snapshotID
        let volume = try harness.localVolume(size: 0, from: source)
        let snapshot = try harness.begin(volume).snapshotID
        let part = noise(512, seed: 51)
        try harness.upload(part, at: 1536, to: snapshot) { $0.progress = .init(percent: 100) }
        var expected = bytes
        expected.replaceSubrange(1536..<2048, with: part)
        #expect(try harness.read(.snapshotID(snapshot), 0, 1 << 20) == expected)
        #expect(try harness.sealed(snapshot) == ServiceHarness.seal(expected))
        // And back: a REMOTE volume from a LOCAL one's snapshot.
        let remote = try harness.createVolume(.init(snapshotID: snapshot)).volumeID
        #expect(try harness.read(.volumeID(remote), 0, 1 << 20) == expected)
        try harness.audit()
    }

    @Test("R1, V7: WriteZeroes and Discard, of volumes and of snapshots in progress")
    func zeroesAndHoles() throws {
        let harness = try ServiceHarness()
        let service = harness.service
        let remote = try harness.createVolume(.init(size: 1 << 20)).volumeID
        let bytes = noise(4 * 65536, seed: 60)
        try harness.write(bytes, at: 0, to: remote)
        let snapshot = try harness.begin(try harness.localVolume(from: harness.begin(remote).snapshotID)).snapshotID
        for target in [Wire.Target.Target.volumeID(remote), .snapshotID(snapshot)] {
            let wire = Wire.Target(target: target)
            let zeros = try harness.call(
                service.writeZeroes,
                .init(target: wire, ranges: [.init(offset: 512, length: 512), .init(offset: 65536, length: 65536)])
            )
            #expect(zeros.writeVerifier.count == 8)
            _ = try harness.call(
                service.discard,
                .init(target: wire, ranges: [.init(offset: 131_072, length: 65536 + 512)])
            )
            let nothing = [UInt8](repeating: 0, count: 512)
            var expected = Array(bytes[..<512]) + nothing + Array(bytes[1024..<65536])
            expected += [UInt8](repeating: 0, count: 2 * 65536) + nothing + Array(bytes[(3 * 65536 + 512)...])
            #expect(try harness.read(target, 0, 4 * 65536) == expected)
            let states = try harness.call(service.listBlocks, .init(target: wire)).blocks.map(\.state)
            #expect(states == [.data, .zeros, .data])
            let bad = [Wire.ByteRange(offset: 0, length: 512), .init(offset: 1, length: 512)]
            let error = refusal { try harness.call(service.discard, .init(target: wire, ranges: bad)) }
            #expect(error?.code == .invalidArgument && error?.blockIndex == 1)
            let wide = [Wire.ByteRange(offset: 0, length: 1 << 21)]
            #expect(refusal { try harness.call(service.writeZeroes, .init(target: wire, ranges: wide)) } != nil)
        }
        try harness.audit()
    }

    @Test(
        "V5: what is uploaded to a snapshot shows through in its clone, under what was written there; it completes by itself"
    )
    func incompleteAncestor() throws {
        let harness = try ServiceHarness()
        let source = try harness.begin(try harness.localVolume()).snapshotID
        let (early, late, own) = (noise(65536, seed: 70), noise(2 * 65536, seed: 71), noise(512, seed: 72))
        try harness.upload(early, at: 0, to: source)
        let clone = try harness.createVolume(.init(snapshotID: source)).volumeID
        try harness.write(own, at: 65536 + 512, to: clone)
        let waiting = try harness.begin(clone)
        #expect(waiting.state == .inProgress)
        #expect(refusal { try harness.upload(own, at: 0, to: waiting.snapshotID) }?.code == .snapshotAlreadyComplete)
        #expect(refusal { try harness.report(50, waiting.snapshotID) }?.code == .snapshotAlreadyComplete)
        let again = try harness.report(100, waiting.snapshotID)
        #expect(again.state == .inProgress && again.percent == 100 && again.seal?.pending == true)
        let refused = refusal { try harness.call(harness.service.deleteVolume, .init(volumeID: clone)) }
        #expect(refused?.code == .failedPrecondition)
        try harness.upload(late, at: 65536, to: source)
        var expected = early + late
        expected.replaceSubrange(65536 + 512..<65536 + 1024, with: own)
        #expect(try harness.read(.volumeID(clone), 0, 3 * 65536) == expected)
        #expect(try harness.describe(waiting.snapshotID).state == .inProgress)
        try harness.report(100, source)
        #expect(try harness.describe(waiting.snapshotID).state == .complete)
        expected += [UInt8](repeating: 0, count: (1 << 20) - expected.count)
        #expect(try harness.sealed(waiting.snapshotID) == ServiceHarness.seal(expected))
        try harness.audit()
    }

    @Test("S1: a volume has a bounded number of snapshots in progress", .timeLimit(.minutes(5)))
    func limit() throws {
        let harness = try ServiceHarness()
        let volume = try harness.localVolume()
        let snapshots = try (0..<Limits.snapshotsInProgress).map { _ in try harness.begin(volume).snapshotID }
        #expect(refusal { try harness.begin(volume) }?.code == .failedPrecondition)
        try harness.delete(snapshots[0])
        #expect(try harness.describe(try #require(snapshots.last)).needsRebase)
        _ = try harness.begin(volume)
        _ = try harness.call(harness.service.deleteVolume, .init(volumeID: volume, cancelSnapshots: true))
        try harness.audit()
    }

    @Test("U8, V3: what goes to a snapshot in progress is durable when it is answered: there is no Flush for it")
    func durability() throws {
        let shard = ShardIndex(0)
        let snapshot = Wire.Target(target: .snapshotID(SnapshotID(.random(shard: shard)).bytes))
        for asked in [Wire.Durability.unspecified, .durable, .onFlush] {
            let call = try WriteCall(snapshot, attachment: 0, durability: asked)
            #expect(call.durability == .durable)
        }
        let volume = Wire.Target(target: .volumeID(VolumeID(.random(shard: shard)).bytes))
        let call = try WriteCall(volume, attachment: 0, durability: .onFlush)
        #expect(call.durability == .onFlush)
        for target in [snapshot, volume] {
            let unknown = refusal { try WriteCall(target, attachment: 0, durability: .init(rawValue: 9)) }
            #expect(unknown?.code == .invalidArgument)
        }
    }
}
