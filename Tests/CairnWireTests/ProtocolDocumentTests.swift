import CairnCore
import CairnWire
import Foundation
import Testing

/// proto/PROTOCOL.md says what the code does.
struct ProtocolDocumentTests {
    private static let marks = ("<!-- example: begin -->\n", "<!-- example: end -->")

    /// `CAIRN_WRITE_EXAMPLE=1` writes the example into the document instead.
    @Test func workedExample() throws {
        let document = try ContractFiles.text("PROTOCOL.md")
        let start = try #require(document.range(of: Self.marks.0))
        let end = try #require(document.range(of: Self.marks.1))
        let example = "\n" + WorkedExample().text + "\n"
        if ProcessInfo.processInfo.environment["CAIRN_WRITE_EXAMPLE"] == "1" {
            let updated = document[..<start.upperBound] + example + document[end.lowerBound...]
            try String(updated).write(to: ContractFiles.url("PROTOCOL.md"), atomically: true, encoding: .utf8)
        } else {
            #expect(document[start.upperBound..<end.lowerBound] == example)
        }
    }

    /// The document's hex, read back as a peer's bytes.
    @Test func workedExampleReadsBack() throws {
        var decoder = FrameDecoder(messageLimit: 1 << 20, payloadLimit: 16 << 20)
        for step in WorkedExample().steps {
            let frame = try step.frame.withUnsafeBytes { raw -> Frame in
                var input = raw
                while true {
                    if case .frame(let frame) = try decoder.next(in: &input) { return frame }
                }
            }
            #expect(FrameHeader.byteCount + frame.header.bodyBytes == step.frame.count)
            let message: any WireMessage =
                switch (frame.header.kind, Wire.Method(header: frame.header.method)) {
                case (.hello, _): try Wire.Hello.decode(frame.message)
                case (_, .createVolume?) where frame.header.kind == .request:
                    try Wire.CreateVolumeRequest.decode(frame.message)
                case (_, .createVolume?): try Wire.CreateVolumeResponse.decode(frame.message)
                case (.request, .uploadBlock?): try Wire.UploadBlockRequest.decode(frame.message)
                case (_, .uploadBlock?): try Wire.UploadBlockResponse.decode(frame.message)
                case (.request, .downloadBlock?): try Wire.DownloadBlockRequest.decode(frame.message)
                case (_, .downloadBlock?): try Wire.DownloadBlockResponse.decode(frame.message)
                case (.request, _): try Wire.DescribeVolumeRequest.decode(frame.message)
                default: try Wire.ErrorDetail.decode(frame.message)
                }
            #expect(message.encode() == frame.message, "\(step.title)")
        }
    }

    @Test func methodsTable() throws {
        let rows = try table(after: "## Methods")
        #expect(rows.count == Wire.Method.allCases.count - 1)
        for row in rows {
            let number = try #require(Int32(row[0]), "\(row)")
            #expect(Wire.Method(rawValue: number).name == row[1])
        }
    }

    @Test func reasonsTable() throws {
        let rows = try table(after: "### Reasons")
        #expect(rows.count == Wire.Reason.allCases.count - 1)
        for row in rows {
            let number = try #require(Int32(row[0]), "\(row)")
            let reason = Wire.Reason(rawValue: number)
            #expect(
                [reason.description, reason.status.description, reason.isRetryable ? "yes" : "no"] == Array(row[1...3])
            )
        }
    }

    @Test func statusesTable() throws {
        let rows = try table(after: "### Statuses")
        #expect(rows.map { "\($0[0]) \($0[1])" } == Status.allCases.map { "\($0.rawValue) \($0)" })
    }

    @Test func kindsTable() throws {
        let rows = try table(after: "### Kinds")
        #expect(
            rows.map { "\($0[0]) \($0[1].lowercased())" }
                == FrameKind.allCases.map { "\($0.rawValue) \("\($0)".lowercased())" }
        )
    }

    /// The cells of the rows of the first table after a heading.
    private func table(after heading: String) throws -> [[String]] {
        let lines = try ContractFiles.text("PROTOCOL.md").split(separator: "\n", omittingEmptySubsequences: false)
        let start = try #require(lines.firstIndex { $0 == heading }, "\(heading) is missing")
        let rows = lines[start...].drop { !$0.hasPrefix("|") }.prefix { $0.hasPrefix("|") }
        return rows.dropFirst(2).map { row in
            row.dropFirst().dropLast().split(separator: "|", omittingEmptySubsequences: false)
                .map { $0.trimmingCharacters(in: .whitespaces) }
        }
    }
}
