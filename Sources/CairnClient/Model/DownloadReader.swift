internal import CairnCore
internal import CairnWire

/// One block of a download as it came: still encoded.
struct DownloadPart: Sendable {
    enum Content: Sendable {
        case plain(BufferSlice)
        case lz4(BufferSlice)
        case zeros
        case hole
        case known
    }
    let offset: UInt64
    let length: Int
    let content: Content
    let checksum: Wire.Checksum?
    /// What was asked for.
    let algorithm: ChecksumAlgorithm
    let token: Fingerprint?

    /// Writes the uncompressed bytes to `target`, which is `length` bytes long, and checks them. Zeros and holes are
    /// written as zeros; `known` writes nothing.
    func unpack(into target: UnsafeMutableRawBufferPointer) throws(ClientError) {
        precondition(target.count == length)
        switch content {
        case .plain(let bytes):
            target.copyMemory(from: bytes.bytes)
            try check(UnsafeRawBufferPointer(target), beyond: nil)
        case .lz4(let bytes):
            if LZ4.decompress(bytes.bytes, into: target) {
                try check(UnsafeRawBufferPointer(target), beyond: nil)
            } else {
                try unpackPadded(bytes, into: target)
            }
        case .zeros, .hole: target.initializeMemory(as: UInt8.self, repeating: 0)
        case .known: break
        }
    }

    /// A volume's last, shorter chunk is stored zero-padded to its chunk size, a power of two, and may come so.
    private func unpackPadded(_ bytes: BufferSlice, into target: UnsafeMutableRawBufferPointer) throws(ClientError) {
        var padded = 4096
        while padded <= 4 << 20 {
            defer { padded <<= 1 }
            guard padded > length else { continue }
            let whole = BufferPool.shared.buffer(capacity: padded)
            let room = UnsafeMutableRawBufferPointer(rebasing: whole.memory[0..<padded])
            guard LZ4.decompress(bytes.bytes, into: room) else { continue }
            target.copyMemory(from: UnsafeRawBufferPointer(rebasing: room[0..<length]))
            return try check(UnsafeRawBufferPointer(target), beyond: UnsafeRawBufferPointer(room))
        }
        throw damaged("LZ4 data that does not decode")
    }

    private func check(_ bytes: UnsafeRawBufferPointer, beyond padded: UnsafeRawBufferPointer?) throws(ClientError) {
        guard let checksum, checksum.algorithm == algorithm.wire else { throw damaged("no checksum as was asked for") }
        let fits = { (bytes: UnsafeRawBufferPointer) in Checksum(algorithm, of: bytes).wire == checksum }
        guard fits(bytes) || padded.map(fits) == true else {
            throw damaged("data that is not what its checksum says")
        }
    }

    private func damaged(_ what: String) -> ClientError {
        ClientError(.damaged, "the server sent \(what), at offset \(offset)")
    }

    /// The block for the library's users.
    func decoded() throws(ClientError) -> DownloadedBlock {
        let content: DownloadedBlock.Content
        switch self.content {
        case .plain(let bytes):
            try check(bytes.bytes, beyond: nil)
            content = .data(bytes)
        case .lz4:
            let buffer = BufferPool.shared.buffer(capacity: length)
            try unpack(into: UnsafeMutableRawBufferPointer(rebasing: buffer.memory[0..<length]))
            buffer.count = length
            content = .data(buffer.slice)
        case .zeros: content = .zeros
        case .hole: content = .hole
        case .known: content = .known
        }
        return DownloadedBlock(offset: offset, length: UInt32(length), content: content, token: token)
    }
}

/// Walks a download's answer, and holds it to the contract: the blocks cover the ranges in order, without gaps, and own the
/// payload's bytes one after the other, all of them. Nothing is read before that is so.
struct DownloadReader {
    private let blocks: [Wire.DownloadedBlock]
    private let payload: BufferSlice?
    private let ranges: [BlockRange]
    private let algorithm: ChecksumAlgorithm
    private var block = 0
    private var payloadAt = 0
    private var range = 0
    /// How much of the present range is covered.
    private var covered: UInt64 = 0

    /// - Parameter algorithm: what the blocks' checksums were asked for by.
    init(
        _ answer: Wire.DownloadBlockResponse,
        payload: BufferSlice?,
        ranges: [BlockRange],
        checkedBy algorithm: ChecksumAlgorithm
    ) {
        blocks = answer.blocks
        self.payload = payload
        self.ranges = ranges.filter { $0.length > 0 }
        self.algorithm = algorithm
    }

    /// The next block; nil after the last, when all is well.
    mutating func next() throws(ClientError) -> DownloadPart? {
        guard block < blocks.count else {
            guard range == ranges.count else { throw violation("ends before its ranges do") }
            guard payloadAt == (payload?.count ?? 0) else { throw violation("has bytes that no block owns") }
            return nil
        }
        let wire = blocks[block]
        block += 1
        guard range < ranges.count, wire.offset == ranges[range].offset + covered, wire.length > 0,
            UInt64(wire.length) <= ranges[range].length - covered
        else { throw violation("does not follow its ranges at offset \(wire.offset)") }
        covered += UInt64(wire.length)
        if covered == ranges[range].length {
            range += 1
            covered = 0
        }
        return DownloadPart(
            offset: wire.offset,
            length: Int(wire.length),
            content: try content(of: wire),
            checksum: wire.checksum,
            algorithm: algorithm,
            token: Fingerprint(bytes: wire.token)
        )
    }

    private mutating func content(of wire: Wire.DownloadedBlock) throws(ClientError) -> DownloadPart.Content {
        switch wire.content {
        case .hole: return .hole
        case .zeros: return .zeros
        case .known: return .known
        case .payloadLength(let length):
            guard let payload, Int(length) <= payload.count - payloadAt else {
                throw violation("names more bytes than it has")
            }
            let bytes = payload.part(payloadAt..<payloadAt + Int(length))
            payloadAt += Int(length)
            switch wire.codec {
            case .lz4: return .lz4(bytes)
            case .plain, .unspecified:
                guard length == wire.length else { throw violation("has a plain block of another length") }
                return .plain(bytes)
            default: throw violation("uses a codec that was not accepted")
            }
        case nil: throw violation("has a block without content")
        }
    }

    private func violation(_ what: String) -> ClientError {
        ClientError(.protocolViolation, "a download's answer \(what)")
    }
}
