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

        func validate() throws {
            guard length.bytes > 0 else { throw ValidationError("The range is empty.") }
            guard offset.bytes % Limits.sector == 0, length.bytes % Limits.sector == 0 else {
                throw ValidationError("Offset and length are multiples of 512.")
            }
        }

        func run(with client: Client) async throws(ClientError) {
            let range = BlockRange(offset: offset.bytes, length: length.bytes)
            let described = try await client.describeVolume(volume)
            let (end, overflow) = range.offset.addingReportingOverflow(range.length)
            // Before the first of several calls: what they clear does not come back.
            guard !overflow, end <= described.size else {
                throw ClientError(
                    .invalidRequest,
                    "the range goes beyond the volume's end at \(described.size): nothing was changed"
                )
            }
            let step = UInt64(Discard.callChunks) * UInt64(described.chunkSize.bytes)
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
