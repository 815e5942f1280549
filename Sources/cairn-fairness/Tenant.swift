import CairnBench
import CairnClient
import CairnCore
import CairnTransport

/// An account with a volume of its own, at work.
struct Tenant: Sendable {
    private static let volumeBytes: UInt64 = 1 << 30

    private let client: Client
    private let volume: VolumeID

    static func make(_ endpoint: Endpoint, _ identity: String, connections: Int) async throws -> Tenant {
        var options = ClientOptions()
        options.connections = min(connections, 64)
        // A call that waits behind many others is what is to be seen.
        options.callLimit = .seconds(600)
        let client = try Client(server: endpoint, credentials: Credentials(identity: identity), options: options)
        var new = NewVolume()
        new.size = volumeBytes
        new.chunkSize = ChunkSize(bytes: 65536)!
        return Tenant(client: client, volume: try await client.createVolume(new).id)
    }

    /// Writes and reads in turn, one call after the other; at least once. A line for each says how long it took.
    /// - Parameters:
    ///   - lane: of several that work at once: which places are its own.
    ///   - pace: the least time from one pair of calls to the next.
    func work(until end: ContinuousClock.Instant, bytes: Int, lane: Int, pace: Duration) async throws -> String {
        let clock = ContinuousClock()
        var due = clock.now
        let content = try ContentPlan(unitBytes: min(bytes, 65536), seed: .random(in: .min ... .max))
        var unit: UInt64 = 0
        var report = ""
        let places = Self.volumeBytes / UInt64(bytes)
        var place = UInt64(lane) &* 7919 % places
        repeat {
            if clock.now < due { try await clock.sleep(until: due) }
            // What could not be done in time is not made up for at once.
            due = max(due, clock.now - pace) + pace
            // Every chunk of it is new to the server.
            let buffer = BufferPool.shared.buffer(capacity: bytes)
            buffer.count = bytes
            unit = content.fill(buffer, first: unit)
            let offset = place * UInt64(bytes)
            place = (place &+ 104_729) % places
            let block = BlockUpload(offset: offset, length: UInt32(bytes), content: .plain(buffer.slice))
            var start = clock.now
            _ = try await client.upload([block], to: .volume(volume))
            report += "write \((clock.now - start) / .seconds(1))\n"
            start = clock.now
            _ = try await client.download([BlockRange(offset: offset, length: UInt64(bytes))], from: .volume(volume))
            report += "read \((clock.now - start) / .seconds(1))\n"
        } while clock.now < end
        return report
    }
}
