import CairnClient
import CairnTransport
import CairnWire
import Foundation

/// A stranger's connection: `openssl s_client`, so that nothing of ours takes part in the handshake, and any bytes can follow.
final class TLSStream: Sendable {
    let child: ChildProcess

    /// - Parameter credentials: nil: no certificate is shown.
    init(
        _ endpoint: Endpoint,
        _ credentials: Credentials?,
        authority: String? = nil,
        extra: [String] = [],
        in folder: WorkFolder
    ) throws {
        var arguments = ["s_client", "-quiet", "-connect", endpoint.description, "-alpn", "cairn/1"] + extra
        if let credentials { arguments += ["-cert", credentials.certificate, "-key", credentials.privateKey] }
        if let authority = authority ?? credentials?.authorities {
            arguments += ["-CAfile", authority, "-verify_return_error"]
        }
        child = try ChildProcess(Program.openssl, arguments, input: .pipe, in: folder)
    }

    deinit { child.send(SIGKILL) }

    /// A whole frame.
    static func frame(
        _ kind: FrameKind,
        method: UInt32 = 0,
        callID: UInt64 = 0,
        value: UInt32 = 0,
        message: [UInt8] = [],
        payload: [UInt8] = []
    ) -> [UInt8] {
        var bytes: [UInt8] = []
        FrameHeader(
            kind,
            method: method,
            callID: callID,
            value: value,
            messageBytes: message.count,
            payloadBytes: payload.count
        ).encode(to: &bytes)
        return bytes + message + payload
    }

    static var hello: [UInt8] {
        frame(
            .hello,
            message: Wire.Hello(
                protocolVersion: 1,
                agent: "stranger",
                limits: .init(
                    maxMessageBytes: 1 << 20,
                    maxPayloadBytes: 16 << 20,
                    maxCalls: 1024,
                    initialCredit: 32 << 20
                )
            ).encode()
        )
    }

    /// The frames that have come so far, whole ones.
    var frames: [(header: FrameHeader, message: [UInt8])] {
        get throws {
            var bytes = child.outputBytes[...]
            var found: [(FrameHeader, [UInt8])] = []
            while bytes.count >= FrameHeader.byteCount {
                let header = try Array(bytes.prefix(FrameHeader.byteCount)).withUnsafeBytes {
                    try FrameHeader(decoding: $0)
                }
                guard bytes.count >= FrameHeader.byteCount + header.bodyBytes else { break }
                bytes = bytes.dropFirst(FrameHeader.byteCount)
                found.append((header, Array(bytes.prefix(Int(header.messageBytes)))))
                bytes = bytes.dropFirst(header.bodyBytes)
            }
            return found
        }
    }

    /// Sends HELLO, and waits for the server's.
    func greet() async throws {
        child.write(Self.hello)
        try await eventually("HELLO is answered: \(child.errors)") {
            guard child.isRunning else { throw HarnessError("the connection ended: \(child.errors)") }
            return try frames.first.map { $0.header.kind == .hello } ?? false
        }
    }
}
