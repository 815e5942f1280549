public import CairnCore

/// A whole frame.
public struct Frame: Sendable {
    public let header: FrameHeader
    public let message: [UInt8]
    /// Nil where the header says 0 bytes, and where the body was skipped.
    public let payload: Buffer?
}

/// Cuts a stream of bytes into frames. No I/O: bytes in, steps out.
///
/// Invariant: nothing is allocated for a frame before its lengths were found within the limits and its header was seen by
/// the caller, and a message's memory grows with the bytes that came, not with those announced.
public struct FrameDecoder {
    public enum Step {
        /// The input is used up.
        case needsInput
        /// A header came in. The caller checks it before it asks for the next step: only then memory is taken. Or it says
        /// ``FrameDecoder/skipBody()``.
        case header(FrameHeader)
        case frame(Frame)
    }

    /// A payload with at least this much missing is read straight into its buffer (``payloadTarget``).
    public static let directBytes = 16 << 10

    private enum Stage {
        case header
        case message(FrameHeader)
        case payload(FrameHeader, Buffer)
        case skipped(FrameHeader, missing: Int)
    }

    /// The longest message and payload; raised once HELLOs were exchanged.
    public var messageLimit: UInt32
    public var payloadLimit: UInt32
    private let pool: BufferPool
    private var stage = Stage.header
    /// What came of a header or message that did not come at once.
    private var partial: [UInt8] = []
    private var message: [UInt8] = []

    public init(messageLimit: UInt32, payloadLimit: UInt32, pool: BufferPool = .shared) {
        self.messageLimit = messageLimit
        self.payloadLimit = payloadLimit
        self.pool = pool
    }

    /// Whether a frame has begun and is not complete.
    public var isMidFrame: Bool {
        if case .header = stage { return !partial.isEmpty }
        return true
    }
    /// The payload bytes of the frame that is coming in, once its header is known.
    public var expectedPayloadBytes: Int {
        switch stage {
        case .header: 0
        case .message(let header), .payload(let header, _), .skipped(let header, _): Int(header.payloadBytes)
        }
    }

    /// Where the coming bytes belong, when they are worth being put there without a copy in between.
    public var payloadTarget: UnsafeMutableRawBufferPointer? {
        guard case .payload(let header, let buffer) = stage else { return nil }
        let missing = Int(header.payloadBytes) - buffer.count
        guard missing >= FrameDecoder.directBytes else { return nil }
        return UnsafeMutableRawBufferPointer(rebasing: buffer.memory[buffer.count..<Int(header.payloadBytes)])
    }

    /// Drops the body of the frame whose header was the last step, as it comes in: the frame has neither message nor payload then.
    public mutating func skipBody() {
        guard case .message(let header) = stage else { preconditionFailure("no header was the last step") }
        stage = .skipped(header, missing: header.bodyBytes)
    }

    /// `count` bytes were put at the start of ``payloadTarget``.
    public mutating func filledPayload(_ count: Int) {
        guard case .payload(let header, let buffer) = stage else { preconditionFailure("no payload is coming") }
        precondition(count <= Int(header.payloadBytes) - buffer.count)
        buffer.count += count
    }

    /// The next step; takes what it needs off the front of `input`. Call until ``Step/needsInput``.
    public mutating func next(in input: inout UnsafeRawBufferPointer) throws(FrameError) -> Step {
        switch stage {
        case .header: return try nextHeader(in: &input)
        case .message(let header):
            guard fillMessage(Int(header.messageBytes), from: &input) else { return .needsInput }
            guard header.payloadBytes > 0 else { return .frame(finish(header, payload: nil)) }
            let buffer = pool.buffer(capacity: Int(header.payloadBytes))
            stage = .payload(header, buffer)
            return fillPayload(header, buffer, from: &input)
        case .payload(let header, let buffer):
            return fillPayload(header, buffer, from: &input)
        case .skipped(let header, let missing):
            let count = min(input.count, missing)
            input = UnsafeRawBufferPointer(rebasing: input[count...])
            guard count == missing else {
                stage = .skipped(header, missing: missing - count)
                return .needsInput
            }
            return .frame(finish(header, payload: nil))
        }
    }

    private mutating func nextHeader(in input: inout UnsafeRawBufferPointer) throws(FrameError) -> Step {
        let header: FrameHeader
        if partial.isEmpty, input.count >= FrameHeader.byteCount {
            header = try FrameHeader(decoding: input)
            input = UnsafeRawBufferPointer(rebasing: input[FrameHeader.byteCount...])
        } else {
            take(FrameHeader.byteCount - partial.count, from: &input)
            guard partial.count == FrameHeader.byteCount else { return .needsInput }
            header = try partial.withUnsafeBytes { bytes in
                Result { () throws(FrameError) in try FrameHeader(decoding: bytes) }
            }.get()
            partial = []
        }
        guard header.messageBytes <= messageLimit else {
            throw .messageTooLong(header.messageBytes, limit: messageLimit)
        }
        guard header.payloadBytes <= payloadLimit else {
            throw .payloadTooLong(header.payloadBytes, limit: payloadLimit)
        }
        stage = .message(header)
        return .header(header)
    }

    /// Whether the message is complete now.
    private mutating func fillMessage(_ count: Int, from input: inout UnsafeRawBufferPointer) -> Bool {
        if partial.isEmpty, input.count >= count {
            message = Array(input[..<count])
            input = UnsafeRawBufferPointer(rebasing: input[count...])
            return true
        }
        take(count - partial.count, from: &input)
        guard partial.count == count else { return false }
        message = partial
        partial = []
        return true
    }

    private mutating func fillPayload(
        _ header: FrameHeader,
        _ buffer: Buffer,
        from input: inout UnsafeRawBufferPointer
    ) -> Step {
        let count = min(input.count, Int(header.payloadBytes) - buffer.count)
        if count > 0 {
            let target = UnsafeMutableRawBufferPointer(rebasing: buffer.memory[buffer.count..<buffer.count + count])
            target.copyMemory(from: UnsafeRawBufferPointer(rebasing: input[..<count]))
            buffer.count += count
            input = UnsafeRawBufferPointer(rebasing: input[count...])
        }
        guard buffer.count == Int(header.payloadBytes) else { return .needsInput }
        return .frame(finish(header, payload: buffer))
    }

    private mutating func finish(_ header: FrameHeader, payload: Buffer?) -> Frame {
        defer {
            message = []
            stage = .header
        }
        return Frame(header: header, message: message, payload: payload)
    }

    private mutating func take(_ count: Int, from input: inout UnsafeRawBufferPointer) {
        let taken = min(count, input.count)
        partial.append(contentsOf: input[..<taken])
        input = UnsafeRawBufferPointer(rebasing: input[taken...])
    }
}
