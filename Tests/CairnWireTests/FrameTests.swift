import CairnCore
import CairnTesting
import Testing

@testable import CairnWire

@Suite struct FrameTests {
    /// Pins the layout: any change here breaks every client.
    @Test func goldenBytes() throws {
        let header = FrameHeader(
            .request,
            method: 0x0102_0304,
            callID: 0x1112_1314_1516_1718,
            value: 30_000,
            credit: 0x2122_2324,
            messageBytes: 5,
            payloadBytes: 0x0001_0000
        )
        var bytes: [UInt8] = []
        header.encode(to: &bytes)
        #expect(
            bytes == [
                0x05, 0x00, 0x01, 0x00, 1, 2, 0, 0, 0x04, 0x03, 0x02, 0x01, 5, 0, 0, 0,
                0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11, 0x30, 0x75, 0, 0, 0x24, 0x23, 0x22, 0x21,
            ]
        )
        #expect(try bytes.withUnsafeBytes { try FrameHeader(decoding: $0) } == header)
    }

    @Test func goldenBytesOfEveryKind() throws {
        let cases: [(FrameHeader, [UInt8])] = [
            (FrameHeader(.hello, messageBytes: 3), [3, 0, 0, 0, 1, 1, 0, 0] + zeros(4) + [3, 0, 0, 0] + zeros(16)),
            (
                FrameHeader(.response, method: 7, callID: 9, value: 8, credit: 1),
                zeros(4) + [1, 3, 0, 0, 7, 0, 0, 0] + zeros(4) + [9] + zeros(7) + [8, 0, 0, 0, 1, 0, 0, 0]
            ),
            (FrameHeader(.cancel, callID: 9), zeros(4) + [1, 4, 0, 0] + zeros(8) + [9] + zeros(15)),
            (FrameHeader(.ping, callID: 1), zeros(4) + [1, 5, 0, 0] + zeros(8) + [1] + zeros(15)),
            (FrameHeader(.pong, callID: 1), zeros(4) + [1, 6, 0, 0] + zeros(8) + [1] + zeros(15)),
            (FrameHeader(.credit, credit: 256), zeros(4) + [1, 7, 0, 0] + zeros(20) + [0, 1, 0, 0]),
            (FrameHeader(.goAway, value: 16), zeros(4) + [1, 8, 0, 0] + zeros(16) + [16] + zeros(7)),
        ]
        for (header, golden) in cases {
            var bytes: [UInt8] = []
            header.encode(to: &bytes)
            #expect(bytes == golden, "\(header.kind)")
            #expect(try bytes.withUnsafeBytes { try FrameHeader(decoding: $0) } == header)
        }
    }

    @Test func refusesWhatIsNoHeader() {
        var valid: [UInt8] = []
        FrameHeader(.request, method: 1, callID: 1, messageBytes: 4).encode(to: &valid)
        func error(_ change: (inout [UInt8]) -> Void) -> FrameError? {
            var bytes = valid
            change(&bytes)
            do throws(FrameError) {
                _ = try bytes.withUnsafeBytes { raw in
                    Result { () throws(FrameError) in try FrameHeader(decoding: raw) }
                }.get()
                return nil
            } catch { return error }
        }
        #expect(error { _ in } == nil)
        #expect(error { $0[4] = 2 } == .version(2))
        #expect(error { $0[5] = 0 } == .kind(0))
        #expect(error { $0[5] = 9 } == .kind(9))
        #expect(error { $0[7] = 0x80 } == .flags(0x8000))
        #expect(error { $0[12] = 5 } == .messageBeyondBody(message: 5, body: 4))
        #expect(error { $0[5] = 4 } == .misplacedField(.cancel))
        #expect(error { $0[5] = 8 } == .misplacedField(.goAway))
        #expect(error { ($0[5], $0[24]) = (3, 17) } == .misplacedField(.response))
    }

    /// The same frames come out however the stream was cut.
    @Test(arguments: 1...40) func anyCutOfTheStream(seed: UInt64) throws {
        var random = SeededRandom(seed: seed)
        var stream: [UInt8] = []
        var sent: [(FrameHeader, [UInt8], [UInt8])] = []
        for id in 1...20 {
            let message = (0..<Int.random(in: 0...300, using: &random)).map { _ in
                UInt8.random(in: 0...255, using: &random)
            }
            let longest = Bool.random(using: &random) ? 70_000 : 100
            let payload = [UInt8](
                repeating: UInt8(id),
                count: Bool.random(using: &random) ? 0 : Int.random(in: 1...longest, using: &random)
            )
            let header = FrameHeader(
                .request,
                method: 1,
                callID: UInt64(id),
                messageBytes: message.count,
                payloadBytes: payload.count
            )
            header.encode(to: &stream)
            stream += message + payload
            sent.append((header, message, payload))
        }
        var decoder = FrameDecoder(messageLimit: 1000, payloadLimit: 100_000)
        let frames = try feed(stream, to: &decoder, random: &random)
        #expect(frames.count == sent.count)
        for (frame, (header, message, payload)) in zip(frames, sent) {
            #expect(
                frame.header == header && frame.message == message
                    && (frame.payload.map { Array($0.bytes) } ?? []) == payload
            )
        }
        #expect(!decoder.isMidFrame)
    }

    /// A skipped body is dropped, however it comes in; what is behind it is whole.
    @Test(arguments: 0..<20) func skippedBodies(seed: Int) throws {
        var random = SeededRandom(seed: UInt64(seed))
        var stream: [UInt8] = []
        for id in 1...40 {
            let message = [UInt8](repeating: UInt8(id), count: .random(in: 0...1000, using: &random))
            let payload = [UInt8](
                repeating: UInt8(id),
                count: id % 3 == 0 ? 0 : .random(in: 1...100_000, using: &random)
            )
            FrameHeader(
                .request,
                method: 1,
                callID: UInt64(id),
                messageBytes: message.count,
                payloadBytes: payload.count
            ).encode(to: &stream)
            stream += message + payload
        }
        var decoder = FrameDecoder(messageLimit: 1000, payloadLimit: 100_000)
        let frames = try feed(stream, to: &decoder, random: &random, skipping: { $0.callID.isMultiple(of: 2) })
        #expect(frames.map(\.header.callID) == Array(1...40))
        for frame in frames {
            let isSkipped = frame.header.callID.isMultiple(of: 2)
            #expect(frame.message.count == (isSkipped ? 0 : Int(frame.header.messageBytes)))
            #expect((frame.payload?.count ?? 0) == (isSkipped ? 0 : Int(frame.header.payloadBytes)))
            #expect(frame.payload?.bytes.allSatisfy { $0 == UInt8(frame.header.callID) } != false)
        }
        #expect(!decoder.isMidFrame)
    }

    private func feed(
        _ stream: [UInt8],
        to decoder: inout FrameDecoder,
        random: inout SeededRandom,
        skipping isSkipped: (FrameHeader) -> Bool = { _ in false }
    ) throws -> [Frame] {
        var frames: [Frame] = []
        var rest = stream[...]
        while !rest.isEmpty {
            var piece = rest.prefix(Int.random(in: 1...Int.random(in: 1...40_000, using: &random), using: &random))
            rest = rest.dropFirst(piece.count)
            // As the transport does: straight into the payload's buffer where the decoder asks for it.
            if let target = decoder.payloadTarget {
                let direct = piece.prefix(target.count)
                target.copyBytes(from: direct)
                decoder.filledPayload(direct.count)
                piece = piece.dropFirst(direct.count)
            }
            try Array(piece).withUnsafeBytes { bytes in
                var input = bytes
                steps: while true {
                    switch try decoder.next(in: &input) {
                    case .needsInput: break steps
                    case .header(let header): if isSkipped(header) { decoder.skipBody() }
                    case .frame(let frame): frames.append(frame)
                    }
                }
            }
        }
        return frames
    }

    @Test func lengthsAreCheckedBeforeAnythingIsTaken() {
        for (message, payload, expected) in [
            (101, 0, FrameError.messageTooLong(101, limit: 100)), (0, 1001, .payloadTooLong(1001, limit: 1000)),
            (Int(UInt32.max), 0, .messageTooLong(.max, limit: 100)),
        ] {
            var bytes: [UInt8] = []
            FrameHeader(.request, method: 1, callID: 1, messageBytes: message, payloadBytes: payload).encode(to: &bytes)
            var decoder = FrameDecoder(messageLimit: 100, payloadLimit: 1000)
            #expect(throws: expected) {
                try bytes.withUnsafeBytes {
                    var input = $0
                    _ = try decoder.next(in: &input)
                }
            }
        }
    }

    private func zeros(_ count: Int) -> [UInt8] { [UInt8](repeating: 0, count: count) }
}
