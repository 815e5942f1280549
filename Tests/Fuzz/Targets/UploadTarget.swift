import CairnCore
import CairnWire

@testable import CairnService

/// An upload as it comes off the wire: planned, verified, decoded. No byte beyond a chunk is ever written (SPEC U9), and what
/// is accepted is as long as was claimed.
enum UploadTarget {
    private static let chunkSizes = [4096, 8192, 65536]

    static func run(_ bytes: UnsafeRawBufferPointer) {
        var input = FuzzInput(bytes)
        switch input.below(3) {
        case 0: decodeWithGuard(&input)
        case 1: uploadOneChunk(&input)
        default: uploadAnything(&input)
        }
    }

    /// LZ4 alone, into memory with a guard behind what was claimed.
    private static func decodeWithGuard(_ input: inout FuzzInput) {
        let claimed = input.word()
        let guardBytes = 64
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: claimed + guardBytes, alignment: 16)
        defer { memory.deallocate() }
        let end = UnsafeMutableRawBufferPointer(rebasing: memory[claimed...])
        end.initializeMemory(as: UInt8.self, repeating: 0xa5)
        _ = LZ4.decompress(input.rest, into: UnsafeMutableRawBufferPointer(rebasing: memory[..<claimed]))
        precondition(end.allSatisfy { $0 == 0xa5 }, "LZ4 wrote beyond what was claimed")
    }

    /// One LZ4 block with a claim of its length and of its checksum.
    private static func uploadOneChunk(_ input: inout FuzzInput) {
        let chunkSize = ChunkSize(bytes: chunkSizes[input.below(chunkSizes.count)])!
        // The last, shorter chunk of the volume among them.
        let volumeSize = UInt64(1 << 20) + UInt64(input.below(16)) * 512
        let chunk = UInt64(input.byte())
        let length = input.flag() ? UInt32(chunkSize.bytes) : UInt32(input.word())
        let algorithm = Wire.ChecksumAlgorithm(rawValue: Int32(input.below(6)))
        let checksum = Array(input.bytes(input.below(40)))
        var block = Wire.UploadBlock(offset: chunk &* UInt64(chunkSize.bytes), length: length)
        block.codec = .lz4
        block.checksum = Wire.Checksum(algorithm: algorithm, value: checksum)
        block.source = .payloadLength(input.flag() ? UInt32(input.rest.count) : UInt32(input.word()))
        upload([block], input.rest, chunkSize, volumeSize)
    }

    /// A call's blocks as a client encoded them, over a payload.
    private static func uploadAnything(_ input: inout FuzzInput) {
        let chunkSize = ChunkSize(bytes: chunkSizes[input.below(chunkSizes.count)])!
        let message = input.bytes(input.word())
        guard let request = try? Wire.UploadBlockRequest.decode(message) else { return }
        upload(request.blocks, input.rest, chunkSize, UInt64(1 << 20) + 512)
    }

    private static func upload(
        _ blocks: [Wire.UploadBlock],
        _ payload: UnsafeRawBufferPointer,
        _ chunkSize: ChunkSize,
        _ volumeSize: UInt64
    ) {
        guard
            let plan = try? UploadPlan(
                blocks,
                payloadCount: payload.count,
                volumeSize: volumeSize,
                chunkSize: chunkSize,
                checksumOptional: true
            )
        else { return }
        let preparation = UploadPreparation(
            chunkSize: chunkSize,
            volumeSize: volumeSize,
            payload: payload.isEmpty ? nil : Buffer(copying: payload).slice,
            find: { _ in .unsound }
        )
        var changes: [Change] = []
        var next: Int? = 0
        while let first = next { next = (try? preparation.add(plan, from: first, to: &changes)) ?? nil }
        for change in changes {
            switch change {
            case .data(let chunk, let data):
                let left = volumeSize - chunkSize.offset(of: chunk)
                precondition(UInt64(data.rawLength) == min(UInt64(chunkSize.bytes), left), "a chunk of a wrong length")
                precondition(data.bytes.count <= data.rawLength, "a record is larger than its chunk")
            case .patch(let offset, let bytes, _):
                precondition(offset + UInt64(bytes.count) <= volumeSize, "a part reaches beyond the volume")
            case .zeroPart(let range):
                precondition(range.upperBound <= volumeSize, "a part reaches beyond the volume")
            case .token(let chunk, _, _), .zeros(let chunk, _), .hole(let chunk):
                precondition(chunkSize.offset(of: chunk) < volumeSize, "a chunk beyond the volume")
            }
        }
    }
}
