internal import CairnCore
internal import CairnWire

extension SessionLimits {
    /// Our HELLO with our limits in it. Nil: `hello` is no encoded `cairn.v1.Hello`.
    func joined(to hello: [UInt8]) -> [UInt8]? {
        guard var message = try? Wire.Hello.decode(hello) else { return nil }
        message.protocolVersion = UInt32(FrameHeader.protocolVersion)
        message.limits = Wire.SessionLimits(
            maxMessageBytes: messageBytes,
            maxPayloadBytes: payloadBytes,
            maxCalls: calls,
            initialCredit: credit
        )
        return message.encode()
    }

    /// The limits in a peer's HELLO. Nil where it cannot be read, speaks no version of ours, or takes so little that no
    /// call fits.
    init?(hello: [UInt8]) {
        guard let message = try? Wire.Hello.decode(hello),
            message.protocolVersion >= UInt32(FrameHeader.protocolVersion),
            let limits = message.limits, limits.maxCalls > 0, limits.maxMessageBytes >= 1024
        else { return nil }
        self.init()
        messageBytes = limits.maxMessageBytes
        payloadBytes = limits.maxPayloadBytes
        calls = limits.maxCalls
        credit = limits.initialCredit
    }

    /// The longest message of a HELLO: it comes from somebody who is not known yet. Of a client's RESPONSE as well, which no credit
    /// pays for: it takes one call of the server's alone, whose answer is short.
    static let helloBytes: UInt32 = 64 << 10
    /// The longest message of a GOAWAY, which nothing pays for either.
    static let goAwayBytes: UInt32 = 4 << 10
}
