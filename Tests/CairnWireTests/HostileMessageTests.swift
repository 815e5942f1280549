import CairnTesting
import CairnWire
import Foundation
import SwiftProtobuf
import Testing

/// Bytes that no friend would send: each is refused or read, and never more than that.
struct HostileMessageTests {
    /// Another seed in each run; `CAIRN_TORTURE_LEVEL=messages CAIRN_TORTURE_SEED=…` makes the same bytes again.
    @Test(.timeLimit(.minutes(10)))
    func randomTruncatedAndChangedBytes() throws {
        let seed = Torture.seed("messages")
        let taken = try TakenBytes()
        var random = RandomValues(seed: seed)
        var outcomes: [Bool: Int] = [:]
        for round in 0..<10_000 {
            let type = allMessages[round % allMessages.count]
            let isRead = try attack(type, &random, taken, "seed \(seed), round \(round)")
            outcomes[isRead, default: 0] += 1
        }
        // Both must come up often, or the attack attacks nothing.
        #expect(outcomes[true, default: 0] > 1_000 && outcomes[false, default: 0] > 1_000, "seed \(seed): \(outcomes)")
    }

    /// Whether the bytes were read. Where the oracle reads them too, both must read the same: what ``TakenBytes`` makes of them.
    private func attack<Message: RandomMessage & OracleConvertible>(
        _: Message.Type,
        _ random: inout RandomValues,
        _ taken: TakenBytes,
        _ place: String
    ) throws -> Bool {
        let bytes = hostileBytes(Message(random: &random).encode(), &random)
        guard let message = try? Message.decode(bytes) else { return false }
        guard let said = try taken.said(bytes, Message.messageName) else { return true }
        if var oracle = try? Message.Oracle(serializedBytes: said) {
            // What was unknown is not kept by us: both say the known part again.
            oracle =
                (try? Message.Oracle(serializedBytes: oracle.serializedData(), options: .discardingUnknown)) ?? oracle
            #expect(message.oracle == oracle, "\(place): \(Message.messageName): \(bytes)")
        }
        return true
    }

    @Test("protobuf-c takes a bool in any wire type, and merges no numbers; other numbers it takes in their own alone")
    func ownWays() throws {
        let taken = try TakenBytes()
        // Field 2 of ListGrantsRequest is a bool, field 1 of PageRequest a number.
        for (bytes, isTrue) in [
            ([0x10, 1], true), ([0x10, 0], false), ([0x10, 0x80, 0], false), ([0x15, 0, 0, 1, 0], true),
            ([0x15, 0x80, 0, 0, 0], false), ([0x11, 0, 0, 0, 0, 0, 0, 0, 1], true), ([0x12, 0], false),
            ([0x12, 1, 0], true),
            ([0x10, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 2], true),
        ] as [([UInt8], Bool)] {
            #expect(try Wire.ListGrantsRequest.decode(bytes).received == isTrue, "\(bytes)")
            #expect(try taken.said(bytes, "ListGrantsRequest") == [0x10, isTrue ? 1 : 0], "\(bytes)")
        }
        for bytes: [UInt8] in [[0x0d, 1, 0, 0, 0], [0x09, 1, 0, 0, 0, 0, 0, 0, 0], [0x0a, 1, 1]] {
            #expect(throws: WireError.malformed(message: "PageRequest")) { try Wire.PageRequest.decode(bytes) }
        }
        // A page with the limit 5, and an empty one.
        let once: [UInt8] = [0x0a, 2, 8, 5]
        let twice = once + [0x0a, 0]
        #expect(try Wire.ListGrantsRequest.decode(once).page == Wire.PageRequest(limit: 5))
        #expect(try taken.said(once, "ListGrantsRequest") == once)
        #expect(try Wire.ListGrantsRequest.decode(twice).page == Wire.PageRequest())
        #expect(try taken.said(twice, "ListGrantsRequest") == nil)
    }

    private func hostileBytes(_ bytes: [UInt8], _ random: inout RandomValues) -> [UInt8] {
        var bytes = bytes
        switch random.below(4) {
        case 0: bytes = random.bytes()
        case 1: bytes.removeLast(random.below(bytes.count + 1))
        case 2:
            for _ in 0...random.below(4) where !bytes.isEmpty { bytes[random.below(bytes.count)] = random.integer() }
        default: bytes.insert(contentsOf: random.bytes().prefix(6), at: random.below(bytes.count + 1))
        }
        return bytes
    }

    @Test func textIsUTF8WithoutNUL() throws {
        func tag(_ key: [UInt8]) -> [UInt8] { [0x0a, UInt8(key.count)] + key }
        #expect(try Wire.Tag.decode(tag(Array("石".utf8))).key == "石")
        #expect(try Wire.Tag.decode(tag([])).key == "")
        for bad: [UInt8] in [
            [0x61, 0, 0x62], [0], [0x61, 0], [0xff], [0xc0, 0x80], [0xed, 0xa0, 0x80], [0xe7, 0x9f],
        ] {
            #expect(throws: WireError.invalidText(message: "Tag"), "\(bad)") { try Wire.Tag.decode(tag(bad)) }
            let list: [UInt8] = [0x1a, UInt8(bad.count)] + bad
            #expect(throws: WireError.invalidText(message: "UpdateTagsRequest")) {
                try Wire.UpdateTagsRequest.decode(list)
            }
        }
        #expect(try Wire.Tag.decode(Wire.Tag(key: "a\0b").encode()).key == "a\u{fffd}b")
    }

    @Test func memoryIsBounded() throws {
        // Half a million empty blocks in a megabyte: each would cost a C struct and a Swift one.
        let empties = Array(repeatElement([0x32, 0] as [UInt8], count: 1 << 19).joined())
        #expect(throws: WireError.overBudget(message: "UploadBlockRequest")) {
            try Wire.UploadBlockRequest.decode(empties)
        }
        // The same of fields that the contract does not know: 2 bytes each of field 15.
        let unknown = Array(repeatElement([0x78, 0] as [UInt8], count: 1 << 19).joined())
        #expect(throws: WireError.overBudget(message: "FlushRequest")) { try Wire.FlushRequest.decode(unknown) }
        // And the thread's memory serves the next message.
        #expect(try Wire.Progress.decode([8, 100]).percent == 100)
    }

    @Test func theFullestCallsFit() throws {
        let block = Wire.UploadBlock(
            offset: .max,
            length: .max,
            checksum: .init(algorithm: .sha256, value: Array(repeating: 1, count: 32)),
            codec: .lz4,
            source: .token(Array(repeating: 2, count: 32))
        )
        let upload = Wire.UploadBlockRequest(blocks: Array(repeating: block, count: 4096))
        #expect(try Wire.UploadBlockRequest.decode(upload.encode()) == upload)
        let query = Wire.QueryChunksRequest(tokens: Array(repeating: Array(repeating: 3, count: 32), count: 16384))
        #expect(try Wire.QueryChunksRequest.decode(query.encode()) == query)
        let placement = Wire.ChunkPlacement(offset: 1 << 40, token: Array(repeating: 4, count: 32))
        let size = placement.encode().count + 2
        let snapshot = Wire.CreateSnapshotRequest(chunks: Array(repeating: placement, count: (1 << 20) / size))
        #expect(try Wire.CreateSnapshotRequest.decode(snapshot.encode()) == snapshot)
    }

    /// Each allocation that protobuf-c makes is refused once: none of its ways out may crash or leave something behind.
    @Test(.timeLimit(.minutes(5)))
    func everyAllocationCanBeRefused() throws {
        var random = RandomValues(seed: 3)
        var merged = 0
        for _ in 0..<20 {
            let message = Wire.UploadBlockRequest(random: &random)
            let bytes = message.encode()
            // A field that comes twice makes protobuf-c merge.
            let doubled = bytes + bytes
            // Not every message can be merged with itself: a sender writes a field once (PROTOCOL.md, "Messages").
            guard (try? Wire.UploadBlockRequest.decode(doubled)) != nil else { continue }
            merged += 1
            for budget in stride(from: 0, to: 16 << 10, by: 8) {
                do throws(WireError) {
                    _ = try doubled.withUnsafeBytes { raw in
                        Result { () throws(WireError) in try Wire.UploadBlockRequest.decode(raw, budget: budget) }
                    }.get()
                    break
                } catch {
                    #expect(error == .overBudget(message: "UploadBlockRequest"))
                }
            }
            #expect(try Wire.UploadBlockRequest.decode(bytes) == message)
        }
        #expect(merged >= 5)
    }

    @Test func manyThreadsCodeAtOnce() async {
        await withTaskGroup(of: Bool.self) { group in
            for seed in 0..<8 {
                group.addTask {
                    var random = RandomValues(seed: UInt64(seed))
                    return (0..<200).allSatisfy { _ in
                        let message = Wire.SnapshotDescription(random: &random)
                        return (try? Wire.SnapshotDescription.decode(message.encode())) == message
                    }
                }
            }
            for await agreed in group { #expect(agreed) }
        }
    }
}

extension BinaryDecodingOptions {
    fileprivate static var discardingUnknown: BinaryDecodingOptions {
        var options = BinaryDecodingOptions()
        options.discardUnknownFields = true
        return options
    }
}
