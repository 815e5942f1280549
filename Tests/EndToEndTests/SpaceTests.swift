import CairnCore
import CairnCrypto
import CairnWire
import Foundation
import Testing

/// Space that comes back, and bytes that went bad.
@Suite(.serialized)
struct SpaceTests {
    @Test(
        "S8: space held by nothing else becomes free again: a store of 256 MiB takes 4 × 64 MiB, each deleted before the next"
    )
    func freed() async throws {
        let server = try await ServerProcess.started(shards: 1, settings: ["capacity=256MiB", "lease-seconds=1"])
        let caller = try await server.connect(freshAccount())
        for round in 0..<4 {
            let volume = try await caller.createVolume(size: 64 << 20).volumeID
            for piece in 0..<8 {
                let bytes = try Image.random(8 << 20)
                // Deletion is work in the background: STORE_FULL asks to come again.
                try await eventually("there is room in round \(round)", within: .seconds(30)) {
                    do {
                        try await caller.upload(volume, .plain(UInt64(piece) * 8 << 20, bytes))
                        return true
                    } catch let error as CallError where error.reason == .storeFull {
                        #expect(error.isRetryable)
                        return false
                    }
                }
            }
            let snapshot = try await caller.createSnapshot(volume).snapshotID
            _ = try await caller.call(Wire.DeleteVolumeRequest(volumeID: volume))
            _ = try await caller.call(Wire.DeleteSnapshotRequest(snapshotID: snapshot))
        }
        #expect(try server.logBytes() <= 256 << 20)
    }

    @Test("A full store answers STORE_FULL, serves reads, and takes writes again when something was deleted")
    func full() async throws {
        let server = try await ServerProcess.started(shards: 1, settings: ["capacity=256MiB", "lease-seconds=1"])
        let caller = try await server.connect(freshAccount())
        let volume = try await caller.createVolume(size: 256 << 20).volumeID
        var written: [[UInt8]] = []
        var full: CallError?
        while written.count < 32, full == nil {
            let bytes = try Image.random(8 << 20)
            do {
                try await caller.upload(volume, .plain(UInt64(written.count) * 8 << 20, bytes))
                written.append(bytes)
            } catch let error as CallError { full = error }
        }
        let error = try #require(full)
        #expect(error.reason == .storeFull)
        #expect(error.status == .resourceExhausted)
        #expect(error.isRetryable)
        for (index, bytes) in written.enumerated() {
            let start = UInt64(index) * 8 << 20
            #expect(try await caller.download(volume, start..<start + 8 << 20) == bytes)
        }
        _ = try await caller.call(Wire.DeleteVolumeRequest(volumeID: volume))
        try await eventually("there is room again", within: .seconds(30)) {
            guard let next = try? await caller.createVolume(size: 8 << 20).volumeID else { return false }
            return (try? await caller.upload(next, .plain(0, written[0]))) != nil
        }
    }

    @Test(
        "D4: a damaged chunk is DATA_LOSS naming volume, offset and fingerprint; never wrong bytes; everything else is served"
    )
    func damage() async throws {
        let server = try await ServerProcess.started(shards: 1)
        let account = freshAccount()
        var caller = try await server.connect(account)
        let volume = try await caller.createVolume().volumeID
        let bytes = Content.noise(150, 1 << 20)
        try await caller.upload(volume, .plain(0, bytes))
        let snapshot = try await caller.createSnapshot(volume).snapshotID
        try await caller.upload(volume, .plain(0, Content.noise(151, 65536)))
        _ = try await server.stop()
        let victim = Array(bytes[5 * 65536..<6 * 65536])
        #expect(try flip(victim, in: server) > 0)
        try await server.start()
        caller = try await server.connect(account)
        for target in [Wire.Target.Target.volumeID(volume), .snapshotID(snapshot)] {
            for range in [5 * 65536..<6 * 65536, 0..<1 << 20, 5 * 65536 + 512..<5 * 65536 + 1024] as [Range<UInt64>] {
                let error = try await failure { try await caller.download(target, [range]) }
                #expect(error.reason == .dataLoss)
                #expect(error.status == .dataLoss)
                for word in [
                    "\(VolumeID(bytes: volume)!)", "\(max(range.lowerBound, 5 * 65536))",
                    Hex.encode(Content.token(victim)),
                ] {
                    #expect(error.text.contains(word), "\(error.text)")
                }
            }
        }
        #expect(try await caller.download(snapshot: snapshot, 0..<5 * 65536) == Array(bytes[0..<5 * 65536]))
        #expect(try await caller.download(snapshot: snapshot, 6 * 65536..<1 << 20) == Array(bytes[(6 * 65536)...]))
        // The command says so too, and makes no file.
        let target = server.folder.file("back")
        let outcome = try await server.cairn(account, ["export", "\(SnapshotID(bytes: snapshot)!)", target])
        #expect(outcome.status == 65)
        #expect(outcome.errors.contains(Hex.encode(Content.token(victim))))
        #expect(!Image.exists(target))
        // Written anew, the volume is whole again.
        try await caller.upload(volume, .plain(5 * 65536, Content.noise(152, 65536)))
        _ = try await caller.download(volume, 0..<1 << 20)
    }

    /// Changes one byte in the middle of `bytes` wherever a segment holds them; gives how often.
    private func flip(_ bytes: [UInt8], in server: ServerProcess) throws -> Int {
        let needle = Data(bytes[30000..<30064])
        var count = 0
        for path in try server.files(under: server.store, ending: ".seg") {
            guard let data = FileManager.default.contents(atPath: path), let range = data.range(of: needle) else {
                continue
            }
            try Image.overwrite(path, at: range.lowerBound, [needle[0] ^ 0x40])
            count += 1
        }
        return count
    }
}
