import CairnCore
import CairnWire
import SwiftProtobuf

/// The conversation that PROTOCOL.md shows in hex: made by the real code, so that the document cannot be wrong.
struct WorkedExample {
    struct Step {
        let title: String
        let frame: [UInt8]
        /// The document's text of it.
        let text: String
    }
    private(set) var steps: [Step] = []

    private static let volumeID = UUID128(high: 0x0190_0000_0000_8000, low: 0x8000_0000_0000_0001).bytes
    private static let payload = [UInt8](repeating: 0x43, count: 512)

    init() {
        greet()
        createVolume()
        upload()
        download()
        fail()
    }

    private mutating func greet() {
        let limits = Wire.SessionLimits(
            maxMessageBytes: 1 << 20,
            maxPayloadBytes: 16 << 20,
            maxCalls: 1024,
            initialCredit: 32 << 20
        )
        add(
            "The client greets",
            FrameHeader(.hello),
            Wire.Hello(
                protocolVersion: 1,
                agent: "example/1.0",
                instanceID: Array(0x10...0x1f),
                limits: limits
            )
        )
        add(
            "The server lets it in",
            FrameHeader(.hello),
            Wire.Hello(
                protocolVersion: 1,
                agent: "cairn/0.1",
                limits: limits,
                server: Wire.ServerFacts(
                    version: "0.1",
                    storeID: Array(0x20...0x2f),
                    shardCount: 4,
                    volumeSizeMinimum: 1 << 20,
                    volumeSizeMaximum: 64 << 40,
                    volumeSizeDefault: 16 << 30,
                    chunkSizeDefault: 64 << 10,
                    maxBlocksPerCall: 4096,
                    maxTokensPerCall: 16384
                )
            )
        )
    }

    private mutating func createVolume() {
        call(
            "CreateVolume: 1 MiB, in chunks of 4 KiB, within 5 seconds",
            id: 1,
            timeout: 5000,
            Wire.CreateVolumeRequest(
                size: 1 << 20,
                chunkSize: 4096,
                kind: .remote,
                idempotencyKey: Array("first".utf8)
            )
        )
        answer(
            "The volume is there",
            to: Wire.CreateVolumeRequest.self,
            id: 1,
            Wire.CreateVolumeResponse(
                volumeID: Self.volumeID,
                initialSnapshotID: UUID128(high: 0x0190_0000_0000_8000, low: 0x8000_0000_0000_0002).bytes,
                dataVersion: 2,
                size: 1 << 20,
                chunkSize: 4096
            )
        )
    }

    private var target: Wire.Target { Wire.Target(target: .volumeID(Self.volumeID)) }
    private var checksum: Wire.Checksum {
        let value = Self.payload.withUnsafeBytes { CRC32C.extend(0, $0) }
        return Wire.Checksum(algorithm: .crc32c, value: withUnsafeBytes(of: value.littleEndian, Array.init))
    }

    private mutating func upload() {
        call(
            "UploadBlock: 512 bytes `C` at offset 512",
            id: 2,
            Wire.UploadBlockRequest(
                target: target,
                durability: .durable,
                blocks: [
                    Wire.UploadBlock(
                        offset: 512,
                        length: 512,
                        checksum: checksum,
                        codec: .plain,
                        source: .payloadLength(512)
                    )
                ]
            ),
            payload: Self.payload
        )
        answer(
            "They are durable, and the request's credit comes back",
            to: Wire.UploadBlockRequest.self,
            id: 2,
            credit: UInt32(steps[4].frame.count - FrameHeader.byteCount),
            Wire.UploadBlockResponse(writeVerifier: Array(0x30...0x37), dataVersion: 2)
        )
    }

    private mutating func download() {
        call(
            "DownloadBlock: the same range",
            id: 3,
            Wire.DownloadBlockRequest(
                target: target,
                ranges: [Wire.ByteRange(offset: 512, length: 512)],
                acceptedCodecs: [.lz4]
            )
        )
        answer(
            "The bytes",
            to: Wire.DownloadBlockRequest.self,
            id: 3,
            Wire.DownloadBlockResponse(
                blocks: [
                    Wire.DownloadedBlock(
                        offset: 512,
                        length: 512,
                        checksum: checksum,
                        codec: .plain,
                        content: .payloadLength(512)
                    )
                ],
                dataVersion: 2
            ),
            payload: Self.payload
        )
    }

    private mutating func fail() {
        call(
            "DescribeVolume of a volume that is not there",
            id: 4,
            Wire.DescribeVolumeRequest(volumeID: Array(repeating: 0, count: 16))
        )
        let error = CallError(.invalidVolumeID, "there is no such volume")
        add(
            "NOT_FOUND",
            FrameHeader(
                .response,
                method: header(Wire.DescribeVolumeRequest.method),
                callID: 4,
                value: error.status.rawValue
            ),
            error.detail
        )
    }

    private func header(_ method: Wire.Method) -> UInt32 { UInt32(method.rawValue) }

    private mutating func call<Request: WireRequest & OracleConvertible>(
        _ title: String,
        id: UInt64,
        timeout: UInt32 = 0,
        _ request: Request,
        payload: [UInt8] = []
    ) {
        add(
            title,
            FrameHeader(.request, method: header(Request.method), callID: id, value: timeout),
            request,
            payload: payload
        )
    }

    private mutating func answer<Request: WireRequest>(
        _ title: String,
        to _: Request.Type,
        id: UInt64,
        credit: UInt32 = 0,
        _ response: Request.Response,
        payload: [UInt8] = []
    ) where Request.Response: OracleConvertible {
        add(
            title,
            FrameHeader(.response, method: header(Request.method), callID: id, credit: credit),
            response,
            payload: payload
        )
    }

    private mutating func add<Message: OracleConvertible>(
        _ title: String,
        _ header: FrameHeader,
        _ message: Message,
        payload: [UInt8] = []
    ) {
        let encoded = message.encode()
        var header = header
        header.messageBytes = UInt32(encoded.count)
        header.payloadBytes = UInt32(payload.count)
        var frame: [UInt8] = []
        header.encode(to: &frame)
        let sender = header.kind == .request || steps.isEmpty ? "C → S" : "S → C"
        var text = "**\(steps.count + 1). \(title)** (\(sender))\n```text\nheader   \(fields(of: frame))\n"
        for (line, start) in stride(from: 0, to: encoded.count, by: 32).enumerated() {
            let hex = Hex.encode(encoded[start..<min(start + 32, encoded.count)])
            text += "\(line == 0 ? "message " : "        ") \(hex)\n"
        }
        if !payload.isEmpty { text += "payload  \(payload.count) bytes of \(Hex.encode(payload.prefix(1)))\n" }
        let words = message.oracle.textFormatString().split(separator: "\n").map { "  \($0)" }.joined(separator: "\n")
        text += "\n\(Message.messageName)\n\(words)\n```\n"
        steps.append(Step(title: title, frame: frame + encoded + payload, text: text))
    }

    /// A header's hex, its fields apart.
    private func fields(of header: [UInt8]) -> String {
        let sizes = [4, 1, 1, 2, 4, 4, 8, 4, 4]
        var rest = header[...]
        return sizes.map { size in
            defer { rest = rest.dropFirst(size) }
            return Hex.encode(rest.prefix(size))
        }.joined(separator: " ")
    }

    var text: String { steps.map(\.text).joined(separator: "\n") }
}
