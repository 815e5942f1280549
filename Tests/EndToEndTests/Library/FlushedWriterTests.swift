import CairnClient
import CairnCore
import Testing

struct FlushedWriterTests {
    @Test("U8: what a killed server was sent since the last flush is sent again, and is there when the flush returns")
    func kill() async throws {
        let server = try await ServerProcess.started()
        var options = ClientOptions()
        options.callLimit = .seconds(120)
        let client = try server.client("writer", options)
        var new = NewVolume()
        new.size = 4 << 20
        let volume = try await client.createVolume(new).id
        let writer = FlushedWriter(client: client, volume: volume)
        var model = [UInt8](repeating: 0, count: 4 << 20)
        func write(_ seed: UInt64, _ offset: Int, _ count: Int) async throws {
            let bytes = Content.noise(seed, count)
            try await writer.write(Buffer(copying: bytes).slice, at: UInt64(offset))
            model.replaceSubrange(offset..<offset + count, with: bytes)
        }
        try await write(1, 0, 1 << 20)
        try await writer.flush()
        #expect(await writer.resentBytes == 0)
        for round in 0..<3 {
            let sentBefore = await writer.resentBytes
            try await write(UInt64(10 + round), 512 * round, 8192)
            try await write(UInt64(20 + round), 2 << 20, 4096)
            try await server.crash()
            try await server.start(sameAddress: true)
            // Newer than what is lost, and over a part of it: this must not be undone.
            try await write(UInt64(30 + round), (2 << 20) + 1024, 1024)
            try await writer.flush()
            #expect(await writer.resentBytes == sentBefore + 8192 + 3072)
            #expect(await writer.unflushedBytes == 0)
            // Durable: another death changes nothing.
            try await server.crash()
            try await server.start(sameAddress: true)
            #expect(try await client.read(.volume(volume), 0..<4 << 20) == model)
        }
        client.close()
    }
}
