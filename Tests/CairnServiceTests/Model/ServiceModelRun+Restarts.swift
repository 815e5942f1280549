import CairnCore
import CairnTesting
import CairnWire
import Foundation

@testable import CairnService
@testable import CairnStore

/// Restarts, crashes, and the end.
extension ServiceModelRun {
    func restart(crashing: Bool) throws {
        last = crashing ? "crash" : "restart"
        let verifiers = server.store.shards.map(\.verifier)
        try server.restart(crashing: crashing)
        let isNew = zip(verifiers, server.store.shards.map(\.verifier)).allSatisfy { $0 != $1 }
        try check(isNew, "a write verifier did not change")
        // What a crash took is up to the machine.
        try server.noting(.nothing) {
            for shard in unflushed.keys.sorted() { try findOut(unflushed[shard] ?? [], crashing) }
        }
        unflushed = [:]
        try server.audit()
        if chance(30) { try probeAll() }
    }

    /// Of what was answered ON_FLUSH a crash may have left the first few calls; which, only the volumes tell. The others are made again. A
    /// restart keeps all.
    private func findOut(_ calls: [Unflushed], _ crashing: Bool) throws {
        var kept = calls.count
        while try !calls.map(\.volume).allSatisfy(isAsExpected) {
            guard crashing, kept > 0 else {
                throw ModelFailure("\(last): what was answered ON_FLUSH is there neither as a whole nor in part")
            }
            kept -= 1
            calls[kept].pile.versions[calls[kept].version] = calls[kept].before
        }
        for lost in calls[kept...] { try sendAgain(lost) }
    }

    private func isAsExpected(_ volume: World.Volume) throws -> Bool {
        let source = world.source(volume)
        let caller = Caller(account: volume.account, isHost: false)
        let opened = world.opened(source, to: volume.account, .export)
        for chunk in writtenChunks(source) {
            let shown = source.show(chunk)
            guard world.verdict(shown, source, opened, caller.account) == .allowed else { continue }
            let room = min(source.pile.sectorsPerChunk, source.sectors - chunk * source.pile.sectorsPerChunk)
            var request = Wire.DownloadBlockRequest(target: target(source))
            let offset = UInt64(chunk * source.pile.chunkSize.bytes)
            request.ranges = [.init(offset: offset, length: UInt64(room * 512))]
            let download = try succeeds(server.call(server.service.downloadBlock, request, caller.context))
            if try ServiceHarness.bytes(of: download) != ModelContents.bytes(shown.stamps[..<room]) { return false }
        }
        return true
    }

    /// All goes; nothing must be left of it, of leases that have ended neither.
    func deleteAll() throws {
        for volume in world.volumes {
            last = "delete everything: a volume with \(world.outstanding(of: volume.id).count) snapshots in progress"
            let request = Wire.DeleteVolumeRequest(volumeID: volume.id, cancelSnapshots: true)
            _ = try succeeds(server.call(server.service.deleteVolume, request, context(volume.account)))
        }
        for account in Self.accounts {
            last = "delete everything: a snapshot"
            let listed = try succeeds(
                server.call(server.service.listSnapshots, .init(page: .init(limit: 1000)), context(account))
            )
            for snapshot in listed.snapshots {
                let request = Wire.DeleteSnapshotRequest(snapshotID: snapshot.snapshotID)
                _ = try succeeds(server.call(server.service.deleteSnapshot, request, context(account)))
            }
            let tokens = (longLeases[account] ?? []).sorted().map(\.bytes)
            last = "delete everything: \(tokens.count) leases"
            _ = try succeeds(server.call(server.service.releaseLease, .init(tokens: tokens), context(account)))
        }
        // Pins end with a lease time, and leases of a few seconds with these; so does the time after a restart in which there may be pins.
        server.clock.putForward(milliseconds: 60_000)
        try server.settle(purged: true)
        let end = Date() + 60
        while try !isEmpty() {
            if Date() > end { throw ModelFailure("left over: \(try server.store.shards.map { try $0.audit() })") }
            usleep(10_000)
        }
        try server.audit()
    }

    private func isEmpty() throws -> Bool {
        for shard in server.store.shards {
            shard.background.wake(newWork: true, isFull: false)
            let report = try shard.audit()
            if report.entries != 0 || report.snapshots != 0 || report.volumes != 0 || report.chunks != 0 {
                return false
            }
            for account in Self.accounts {
                if try shard.makeView().usage(of: account) != AccountUsage() { return false }
            }
        }
        return true
    }
}
