import CairnWire
import Foundation
import SwiftProtobuf
import Testing

/// Our coding against swift-protobuf's, which shares no line with it.
struct OracleTests {
    private static let messagesOfEachType = 100

    @Test(.timeLimit(.minutes(10)))
    func everyMessageGoesBothWays() throws {
        for (index, type) in allMessages.enumerated() { try compare(type, seed: UInt64(index)) }
    }

    private func compare<Message: RandomMessage & OracleConvertible>(_: Message.Type, seed: UInt64) throws {
        var random = RandomValues(seed: seed)
        for _ in 0..<OracleTests.messagesOfEachType {
            let message = Message(random: &random)
            let oracle = message.oracle
            let read = try Message.Oracle(serializedBytes: message.encode())
            #expect(read == oracle, "\(Message.messageName), ours read by the oracle")
            let back = try Message.decode([UInt8](oracle.serializedData()))
            #expect(back == message, "\(Message.messageName), the oracle's read by us")
        }
    }

    @Test func unknownFieldsAreSkipped() throws {
        var random = RandomValues(seed: 1)
        // Field 1000, as a varint, as 8 bytes, as bytes and as 4 bytes.
        let unknown: [[UInt8]] = [
            [0xc0, 0x3e, 0x96, 0x01], [0xc1, 0x3e, 1, 2, 3, 4, 5, 6, 7, 8], [0xc2, 0x3e, 3, 9, 9, 9],
            [0xc5, 0x3e, 1, 2, 3, 4],
        ]
        for _ in 0..<50 {
            let message = Wire.UploadBlockRequest(random: &random)
            let more = unknown.shuffled(using: &random.generator).flatMap { $0 }
            #expect(try Wire.UploadBlockRequest.decode(more + message.encode() + more) == message)
        }
    }

    @Test func repeatedNumbersMayComeUnpacked() throws {
        let unpacked: [UInt8] = [0x10, 1, 0x10, 0x80, 0x01, 0x12, 2, 5, 6]
        #expect(try Wire.UploadBlockResponse.decode(unpacked).superseded == [1, 128, 5, 6])
    }

    @Test func encodingAppends() {
        var bytes: [UInt8] = [1, 2]
        Wire.Progress(percent: 5).encode(into: &bytes)
        #expect(bytes == [1, 2, 8, 5])
        Wire.Empty().encode(into: &bytes)
        #expect(bytes == [1, 2, 8, 5])
    }
}
