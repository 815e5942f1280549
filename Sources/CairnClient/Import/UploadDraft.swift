internal import CairnCore
internal import CairnWire

/// One UploadBlock call in the making: blocks by rising offset, and the payload that is theirs. Neighbouring marks become
/// one block, neighbouring bytes of a buffer one slice.
struct UploadDraft: Sendable {
    fileprivate(set) var blocks: [Wire.UploadBlock] = []
    private(set) var payload: [BufferSlice] = []
    /// Sums in bytes of the volume.
    private(set) var marked: UInt64 = 0
    fileprivate(set) var named: UInt64 = 0
    private(set) var sent: UInt64 = 0
    private(set) var payloadBytes: UInt64 = 0
    /// What the server must answer for the chunks that are sent with their bytes: it computes the same.
    private(set) var fingerprints: [UInt64: Fingerprint] = [:]

    var isEmpty: Bool { blocks.isEmpty }

    mutating func zeros(_ range: Range<UInt64>) { mark(range, .zeros(Wire.Empty())) }
    mutating func hole(_ range: Range<UInt64>) { mark(range, .hole(Wire.Empty())) }

    private mutating func mark(_ range: Range<UInt64>, _ source: Wire.UploadBlock.Source) {
        let length = range.upperBound - range.lowerBound
        marked += length
        if let last = blocks.last, last.source == source, last.offset + UInt64(last.length) == range.lowerBound,
            UInt64(last.length) + length <= UInt64(UInt32.max)
        {
            blocks[blocks.count - 1].length += UInt32(length)
        } else {
            blocks.append(Wire.UploadBlock(offset: range.lowerBound, length: UInt32(length), source: source))
        }
    }

    /// A chunk that the server has.
    mutating func token(_ range: Range<UInt64>, _ fingerprint: Fingerprint) {
        let length = range.upperBound - range.lowerBound
        named += length
        blocks.append(
            Wire.UploadBlock(offset: range.lowerBound, length: UInt32(length), source: .token(fingerprint.bytes))
        )
    }

    /// A chunk with its bytes, compressed or not; the checksum is of the uncompressed ones.
    mutating func data(
        _ range: Range<UInt64>,
        _ fingerprint: Fingerprint,
        codec: Wire.Codec,
        bytes: BufferSlice,
        checksum: Checksum
    ) {
        let length = range.upperBound - range.lowerBound
        sent += length
        payloadBytes += UInt64(bytes.count)
        fingerprints[range.lowerBound] = fingerprint
        var block = Wire.UploadBlock(offset: range.lowerBound, length: UInt32(length))
        block.codec = codec
        block.source = .payloadLength(UInt32(bytes.count))
        block.checksum = checksum.wire
        blocks.append(block)
        if let last = payload.last, last.buffer === bytes.buffer, last.range.upperBound == bytes.range.lowerBound {
            payload[payload.count - 1] = BufferSlice(
                buffer: last.buffer,
                range: last.range.lowerBound..<bytes.range.upperBound
            )
        } else {
            payload.append(bytes)
        }
    }

    /// Holds the answer to what was sent: the server's fingerprints are those that we computed (SPEC U6).
    func check(_ answer: Wire.UploadBlockResponse) throws(ClientError) {
        for chunk in answer.chunks {
            guard let ours = fingerprints[chunk.offset] else { continue }
            guard Fingerprint(bytes: chunk.token) == ours else {
                throw ClientError(.damaged, "the server stored another chunk than was sent at offset \(chunk.offset)")
            }
        }
    }
}

extension UploadDraft {
    /// The same upload, but for the chunks at these offsets, which it names by token.
    func without(_ offsets: Set<UInt64>) -> UploadDraft {
        var rest = self
        for block in blocks where offsets.contains(block.offset) { rest.named -= UInt64(block.length) }
        rest.blocks.removeAll { offsets.contains($0.offset) }
        return rest
    }
}
