import CairnCore
import CairnRPC
import CairnWire
import Foundation
import Testing

/// What one connection was answered, another sees (SPEC C6); what a dead server did not answer can be asked again (SPEC C5).
@Suite(.serialized)
struct ConsistencyTests {
    @Test("C6: what was answered on one connection is seen on another at once, whatever it was", arguments: [1, 4])
    func readYourWrites(shards: Int) async throws {
        let server = try await ServerProcess.started(shards: shards)
        let account = freshAccount()
        let callers = [try await server.connect(account), try await server.connect(account)]
        let volume = try await callers[0].createVolume().volumeID
        for round in 0..<150 {
            let (writer, reader) = (callers[round % 2], callers[1 - round % 2])
            let content = Content.noise(UInt64(round) + 1, 4096)
            let offset = UInt64(round % 16) * 65536
            // Not even what is not durable yet is hidden.
            try await writer.upload(
                volume,
                [.plain(offset, content)],
                durability: round % 3 == 0 ? .onFlush : .durable
            )
            #expect(try await reader.download(volume, offset..<offset + 4096) == content)
            guard round % 10 == 0 else { continue }
            let snapshot = try await writer.createSnapshot(volume)
            #expect(try await reader.describeVolume(volume).dataVersion == snapshot.dataVersion + 1)
            let list = try await reader.call(Wire.ListSnapshotsRequest(volumeID: volume)).message.snapshots
            #expect(list.contains { $0.snapshotID == snapshot.snapshotID })
            let clone = try await reader.createVolume(from: snapshot.snapshotID).volumeID
            #expect(try await writer.download(clone, offset..<offset + 4096) == content)
            _ = try await writer.call(Wire.DeleteVolumeRequest(volumeID: clone))
            #expect(try await failure { try await reader.describeVolume(clone) }.reason == .invalidVolumeID)
            _ = try await reader.call(Wire.DeleteSnapshotRequest(snapshotID: snapshot.snapshotID))
            #expect(
                try await failure { try await writer.describeSnapshot(snapshot.snapshotID) }.reason
                    == .invalidSnapshotID
            )
        }
    }

    @Test("C5: calls with a key that a killed server did not answer are carried out once, whatever it had done of them")
    func killedWithoutAnswer() async throws {
        let server = try await ServerProcess.started(shards: 4)
        let account = freshAccount()
        var answers: [Int: Wire.CreateVolumeResponse] = [:]
        func key(_ number: Int) -> [UInt8] { Array("volume-\(number)".utf8) }
        for round in 0..<3 {
            let caller = try await server.connect(account)
            let numbers = round * 100..<(round + 1) * 100
            let made = await withTaskGroup(of: (Int, Wire.CreateVolumeResponse)?.self) { group in
                for number in numbers {
                    group.addTask {
                        guard
                            let answer = try? await caller.createVolume(affinity: [UInt8(number % 7)], key: key(number))
                        else { return nil }
                        return (number, answer)
                    }
                }
                var made: [(Int, Wire.CreateVolumeResponse)] = []
                for await one in group {
                    guard let one else { continue }
                    made.append(one)
                    // In the middle: some are answered, some done and not answered, some never begun.
                    if made.count == 20 { server.child.send(SIGKILL) }
                }
                return made
            }
            for (number, answer) in made { answers[number] = answer }
            _ = try await server.child.wait(limit: .seconds(30))
            try await server.start()
        }
        let caller = try await server.connect(account)
        for number in 0..<300 {
            let again = try await caller.createVolume(affinity: [UInt8(number % 7)], key: key(number))
            if let answer = answers[number] { #expect(again == answer, "volume \(number)") }
            answers[number] = again
        }
        var (found, token): (Set<[UInt8]>, [UInt8]) = ([], [])
        repeat {
            let page = try await caller.call(
                Wire.ListVolumesRequest(page: Wire.PageRequest(limit: 1000, pageToken: token))
            ).message
            found.formUnion(page.volumes.map(\.volumeID))
            token = page.nextPageToken
        } while !token.isEmpty
        #expect(found == Set(answers.values.map(\.volumeID)))
        #expect(found.count == 300)
    }
}
