/// What a frame is for.
public enum FrameKind: UInt8, Sendable, CaseIterable {
    /// The first frame of each side: versions, limits, features, credit.
    case hello = 1
    case request = 2
    case response = 3
    /// The caller no longer wants the answer.
    case cancel = 4
    case ping = 5
    case pong = 6
    /// Gives credit back when no other frame goes out.
    case credit = 7
    /// No new calls are taken; with a status: the connection ends now, and why.
    case goAway = 8
}

/// The 32 bytes that begin each frame; all fields little-endian.
///
/// ```
///  0       4   5    6     8       12              16        24                 28       32
///  ┌───────┬───┬────┬─────┬───────┬───────────────┬─────────┬──────────────────┬────────┐
///  │ body  │ver│kind│flags│method │ message bytes │ call id │ timeout or status│ credit │ message … payload …
///  └───────┴───┴────┴─────┴───────┴───────────────┴─────────┴──────────────────┴────────┘
/// ```
public struct FrameHeader: Sendable, Equatable {
    public static let byteCount = 32
    public static let protocolVersion: UInt8 = 1

    public var kind: FrameKind
    /// REQUEST's method, echoed in RESPONSE; else 0.
    public var method: UInt32 = 0
    /// The length of the protobuf message.
    public var messageBytes: UInt32 = 0
    /// The length of the raw bytes behind the message.
    public var payloadBytes: UInt32 = 0
    /// REQUEST, RESPONSE, CANCEL: the call. PING, PONG: an opaque number to echo. Else 0.
    public var callID: UInt64 = 0
    /// REQUEST: the timeout in milliseconds (0: none). RESPONSE and GOAWAY: a status. Else 0.
    public var value: UInt32 = 0
    /// Bytes of credit given back to the frame's receiver.
    public var credit: UInt32 = 0

    public init(
        _ kind: FrameKind,
        method: UInt32 = 0,
        callID: UInt64 = 0,
        value: UInt32 = 0,
        credit: UInt32 = 0,
        messageBytes: Int = 0,
        payloadBytes: Int = 0
    ) {
        self.kind = kind
        self.method = method
        self.callID = callID
        self.value = value
        self.credit = credit
        self.messageBytes = UInt32(messageBytes)
        self.payloadBytes = UInt32(payloadBytes)
    }

    /// Message and payload together.
    public var bodyBytes: Int { Int(messageBytes) + Int(payloadBytes) }

    /// Appends the header's bytes.
    public func encode(to output: inout [UInt8]) {
        withUnsafeTemporaryAllocation(byteCount: FrameHeader.byteCount, alignment: 8) { bytes in
            bytes.storeBytes(of: UInt32(bodyBytes).littleEndian, toByteOffset: 0, as: UInt32.self)
            bytes.storeBytes(of: FrameHeader.protocolVersion, toByteOffset: 4, as: UInt8.self)
            bytes.storeBytes(of: kind.rawValue, toByteOffset: 5, as: UInt8.self)
            bytes.storeBytes(of: 0, toByteOffset: 6, as: UInt16.self)
            bytes.storeBytes(of: method.littleEndian, toByteOffset: 8, as: UInt32.self)
            bytes.storeBytes(of: messageBytes.littleEndian, toByteOffset: 12, as: UInt32.self)
            bytes.storeBytes(of: callID.littleEndian, toByteOffset: 16, as: UInt64.self)
            bytes.storeBytes(of: value.littleEndian, toByteOffset: 24, as: UInt32.self)
            bytes.storeBytes(of: credit.littleEndian, toByteOffset: 28, as: UInt32.self)
            output.append(contentsOf: bytes)
        }
    }

    /// Reads the header at the start of `bytes`, which holds at least ``byteCount`` bytes, and checks what can be checked
    /// without knowing the session: version, kind, flags, the lengths against each other, fields that the kind does not use.
    public init(decoding bytes: UnsafeRawBufferPointer) throws(FrameError) {
        let body = UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 0, as: UInt32.self))
        let version = bytes[4]
        guard version == FrameHeader.protocolVersion else { throw .version(version) }
        guard let kind = FrameKind(rawValue: bytes[5]) else { throw .kind(bytes[5]) }
        let flags = UInt16(littleEndian: bytes.loadUnaligned(fromByteOffset: 6, as: UInt16.self))
        guard flags == 0 else { throw .flags(flags) }
        let message = UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 12, as: UInt32.self))
        guard message <= body else { throw .messageBeyondBody(message: message, body: body) }
        self.kind = kind
        method = UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt32.self))
        messageBytes = message
        payloadBytes = body - message
        callID = UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: 16, as: UInt64.self))
        value = UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 24, as: UInt32.self))
        credit = UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 28, as: UInt32.self))
        try checkUnusedFields()
    }

    private func checkUnusedFields() throws(FrameError) {
        let fits =
            switch kind {
            case .hello: method == 0 && callID == 0 && value == 0 && credit == 0 && payloadBytes == 0
            case .request: true
            case .response: value <= 16 && (value == 0 || payloadBytes == 0)
            case .cancel: method == 0 && value == 0 && bodyBytes == 0
            case .ping, .pong: method == 0 && value == 0 && bodyBytes == 0
            case .credit: method == 0 && callID == 0 && value == 0 && bodyBytes == 0
            case .goAway:
                method == 0 && callID == 0 && value <= 16 && payloadBytes == 0 && (value != 0 || messageBytes == 0)
            }
        guard fits else { throw .misplacedField(kind) }
    }
}

/// What is wrong with a frame: the peer broke the protocol.
public enum FrameError: Error, Sendable, Equatable, CustomStringConvertible {
    case version(UInt8)
    case kind(UInt8)
    case flags(UInt16)
    case messageBeyondBody(message: UInt32, body: UInt32)
    case messageTooLong(UInt32, limit: UInt32)
    case payloadTooLong(UInt32, limit: UInt32)
    /// A field or body that frames of this kind do not have.
    case misplacedField(FrameKind)

    public var description: String {
        switch self {
        case .version(let version): "frame of version \(version)"
        case .kind(let kind): "frame of unknown kind \(kind)"
        case .flags(let flags): "frame with unknown flags \(flags)"
        case .messageBeyondBody(let message, let body): "message of \(message) bytes in a body of \(body)"
        case .messageTooLong(let count, let limit): "message of \(count) bytes, limit \(limit)"
        case .payloadTooLong(let count, let limit): "payload of \(count) bytes, limit \(limit)"
        case .misplacedField(let kind): "\(kind) frame with a field that it does not have"
        }
    }
}
