import ArgumentParser
import CairnClient
import CairnCore

/// What concerns a volume's labels, writer and data.
extension VolumeCommands {
    struct Tag: ServiceCommand {
        static let configuration = CommandConfiguration(abstract: "Set and remove a volume's labels.")

        @Argument(help: ArgumentHelp("The volume.", valueName: "vol-…"))
        var volume: VolumeID

        @OptionGroup var change: TagChange
        @OptionGroup var connection: ConnectionOptions

        func run(with client: Client) async throws(ClientError) {
            try await change.apply(to: .volume(volume), client, connection)
        }
    }

    struct Attach: ServiceCommand {
        static let configuration = CommandConfiguration(
            abstract: "Take a volume over: writes of whoever attached it before are refused from now on.",
            discussion: "Only writers that say which attachment they have are fenced out."
        )

        @Argument(help: ArgumentHelp("The volume.", valueName: "vol-…"))
        var volume: VolumeID

        @OptionGroup var connection: ConnectionOptions

        func run(with client: Client) async throws(ClientError) {
            let attachment = try await client.attachVolume(volume)
            let report = AttachmentReport(volumeId: "\(volume)", attachmentGeneration: attachment.generation)
            Output.print(connection.json ? Output.json(report) : "\(volume)  (generation \(attachment))")
        }
    }

    struct Discard: ServiceCommand {
        static let configuration = CommandConfiguration(
            abstract: "Make a range of a volume a hole, which reads as zeros and takes no space.",
            discussion: "Offset and length are multiples of 512, and may have units: 1GiB."
        )

        @Argument(help: ArgumentHelp("The volume.", valueName: "vol-…"))
        var volume: VolumeID

        @Argument(help: "Where the range begins.")
        var offset: ByteSize

        @Argument(help: "How long it is.")
        var length: ByteSize

        /// Chunks that are cleared by one call: half of what a call may touch.
        private static let callChunks = Limits.recordsPerCall / 2

        @Flag(help: "Write zeros instead: they count as data that was written.")
        var zeros = false

        @OptionGroup var connection: ConnectionOptions

        func run(with client: Client) async throws(ClientError) {
            let range = BlockRange(offset: offset.bytes, length: length.bytes)
            let step = UInt64(Discard.callChunks) * UInt64(try await client.describeVolume(volume).chunkSize.bytes)
            let (end, overflow) = range.offset.addingReportingOverflow(range.length)
            guard !overflow, end <= Limits.volumeSizeMaximum else {
                throw ClientError(.invalidRequest, "the range is beyond any volume's end")
            }
            for start in stride(from: range.offset, to: end, by: UInt64.Stride(step)) {
                let part = BlockRange(offset: start, length: min(step, end - start))
                if zeros {
                    try await client.writeZeroes([part], of: .volume(volume))
                } else {
                    try await client.discard([part], of: .volume(volume))
                }
            }
            let report = ClearedReport(volumeId: "\(volume)", offset: range.offset, length: range.length)
            let text = "\(volume)  (\(ByteCount.text(range.length)) \(zeros ? "zeroed" : "discarded"))"
            Output.print(connection.json ? Output.json(report) : text)
        }
    }
}

struct AttachmentReport: Encodable {
    let volumeId: String
    let attachmentGeneration: UInt64
}

struct ClearedReport: Encodable {
    let volumeId: String
    let offset: UInt64
    let length: UInt64
}
