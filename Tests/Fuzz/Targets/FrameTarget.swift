import CairnCore
import CairnWire

/// Whatever way a stream of bytes is cut when it comes, the same frames and the same fault come out; and a header that was read
/// is written again as it was.
enum FrameTarget {
    private struct Outcome: Equatable {
        var headers: [FrameHeader] = []
        var bodies: [[UInt8]] = []
        var fault: FrameError?
        var isMidFrame = false
    }

    static func run(_ bytes: UnsafeRawBufferPointer) {
        var input = FuzzInput(bytes)
        let limits = (UInt32([16, 300, 1024, 65536][input.below(4)]), UInt32([0, 64, 20000, 1 << 20][input.below(4)]))
        let cuts = (0..<8).map { _ in input.byte() }
        let stream = input.rest
        let whole = decode(stream, cuts: [], limits)
        precondition(decode(stream, cuts: cuts, limits) == whole, "the cuts make a difference")
        var at = 0
        for header in whole.headers {
            var encoded: [UInt8] = []
            header.encode(to: &encoded)
            let came = stream[at..<at + FrameHeader.byteCount]
            precondition(encoded.elementsEqual(came), "another header is written than was read")
            at += FrameHeader.byteCount + header.bodyBytes
        }
    }

    private static func decode(_ stream: UnsafeRawBufferPointer, cuts: [Int], _ limits: (UInt32, UInt32)) -> Outcome {
        var decoder = FrameDecoder(messageLimit: limits.0, payloadLimit: limits.1)
        var outcome = Outcome()
        var rest = stream
        var turn = 0
        do throws(FrameError) {
            while !rest.isEmpty {
                let count = cuts.isEmpty ? rest.count : min(rest.count, 1 + cuts[turn % cuts.count])
                turn += 1
                var piece = UnsafeRawBufferPointer(rebasing: rest[..<count])
                rest = UnsafeRawBufferPointer(rebasing: rest[count...])
                // Where a payload is long enough to be read to its place, some pieces are.
                if turn.isMultiple(of: 2), let target = decoder.payloadTarget {
                    let direct = min(target.count, piece.count)
                    target.copyMemory(from: UnsafeRawBufferPointer(rebasing: piece[..<direct]))
                    piece = UnsafeRawBufferPointer(rebasing: piece[direct...])
                    decoder.filledPayload(direct)
                }
                try steps(&decoder, &piece, &outcome)
            }
        } catch {
            outcome.fault = error
            return outcome
        }
        outcome.isMidFrame = decoder.isMidFrame
        return outcome
    }

    private static func steps(
        _ decoder: inout FrameDecoder,
        _ piece: inout UnsafeRawBufferPointer,
        _ outcome: inout Outcome
    ) throws(FrameError) {
        while true {
            switch try decoder.next(in: &piece) {
            case .needsInput:
                precondition(piece.isEmpty, "input is left over")
                return
            case .header(let header): outcome.headers.append(header)
            case .frame(let frame):
                precondition(frame.message.count == Int(frame.header.messageBytes))
                precondition(frame.payload?.count ?? 0 == Int(frame.header.payloadBytes))
                outcome.bodies.append(frame.message + Array(frame.payload?.bytes ?? .init(start: nil, count: 0)))
            }
        }
    }
}
