import ArgumentParser
import CairnClient
import CairnCore

struct DiffCommand: ServiceCommand {
    static let configuration = CommandConfiguration(
        commandName: "diff",
        abstract: "Show which blocks differ between two snapshots, or a snapshot and a volume.",
        discussion: """
            The blocks are as they are in the newer one, and their sum comes last. The two need not be related; between a \
            snapshot and what came of it the question costs as much as there is change. Only block content counts, not how \
            it is stored.

              cairn diff snap-… snap-…
              cairn diff snap-… vol-… --chunks
            """
    )

    @Argument(help: ArgumentHelp("What was before.", valueName: "older"))
    var older: OriginArgument

    @Argument(help: ArgumentHelp("What is now.", valueName: "newer"))
    var newer: OriginArgument

    @Flag(help: "Show each chunk with its token, instead of whole ranges.")
    var chunks = false

    @OptionGroup var connection: ConnectionOptions

    func run(with client: Client) async throws(ClientError) {
        let pages = client.changedBlocks(from: older.target, to: newer.target)
        var sum = DiffSum()
        if connection.json { return try await printJSON(pages) }
        Output.print(DiffCommand.titles(chunks))
        var range: BlockDescription?
        var iterator = pages.makeAsyncIterator()
        while let block = try await iterator.next(isolation: nil) {
            sum.add(block)
            if !chunks, let last = range, last.state == block.state, last.offset + last.length == block.offset {
                range = BlockDescription(offset: last.offset, length: last.length + block.length, state: last.state)
                continue
            }
            if let range { Output.print(DiffCommand.line(range, chunks)) }
            range = block
        }
        if let range { Output.print(DiffCommand.line(range, chunks)) }
        Output.print(sum.text)
    }

    /// As the pages come: there may be as many blocks as a volume has chunks. So a failure on the way leaves the document cut.
    private func printJSON(_ pages: Pages<BlockDescription>) async throws(ClientError) {
        var document = DiffDocument()
        var iterator = pages.makeAsyncIterator()
        while let block = try await iterator.next(isolation: nil) { Output.print(document.add(block)) }
        Output.print(document.end())
    }

    private static func titles(_ chunks: Bool) -> String {
        let columns = [padded("OFFSET"), padded("LENGTH"), "STATE"]
        return (chunks ? columns + ["TOKEN"] : columns).joined(separator: "  ")
    }

    private static func line(_ block: BlockDescription, _ chunks: Bool) -> String {
        let state = Reports.state(block.state)
        let columns = [padded("\(block.offset)"), padded("\(block.length)")]
        guard chunks else { return (columns + [state]).joined(separator: "  ") }
        return (columns + [state + String(repeating: " ", count: 5 - state.count), block.token.map { "\($0)" } ?? "-"])
            .joined(separator: "  ")
    }

    /// As wide as the largest volume's offsets: the lines go out as they come, so their widths are not known before.
    private static func padded(_ text: String) -> String {
        String(repeating: " ", count: max(0, 14 - text.count)) + text
    }
}

/// What differs, in bytes.
struct DiffSum {
    private(set) var blocks = 0
    private(set) var data: UInt64 = 0
    private(set) var zeros: UInt64 = 0
    private(set) var holes: UInt64 = 0

    var bytes: UInt64 { data + zeros + holes }

    mutating func add(_ block: BlockDescription) {
        blocks += 1
        switch block.state {
        case .data: data += block.length
        case .zeros: zeros += block.length
        case .hole: holes += block.length
        }
    }

    var text: String {
        guard blocks > 0 else { return "nothing differs" }
        return "\(ByteCount.text(bytes)) differ: \(ByteCount.text(data)) of data, \(ByteCount.text(zeros)) of zeros, "
            + "\(ByteCount.text(holes)) of holes"
    }
}

/// What `diff --json` shows, in pieces that are lines: together what ``Output/json(_:)`` makes of an object with the `blocks` and
/// the sums of a ``DiffReport``, whose names all come after.
struct DiffDocument {
    private var sum = DiffSum()
    /// A comma follows it if there is another one.
    private var last: String?

    /// What can be said now that another block is there.
    mutating func add(_ block: BlockDescription) -> String {
        let before = last.map { $0 + "," } ?? DiffDocument.head
        sum.add(block)
        last = Output.json(DiffReport.Block(block)).split(separator: "\n").map { "    " + $0 }.joined(separator: "\n")
        return before
    }

    /// What is left.
    func end() -> String {
        let sums = String(Output.json(DiffReport(sum)).dropFirst("{\n".count))
        return (last ?? DiffDocument.head + "\n") + "\n  ],\n" + sums
    }

    private static let head = "{\n  \"blocks\" : ["
}

/// The sums of `diff --json`; all in bytes.
struct DiffReport: Encodable {
    struct Block: Encodable {
        let offset: UInt64
        let length: UInt64
        let state: String
        let token: String?
        let owner: String?

        init(_ block: BlockDescription) {
            offset = block.offset
            length = block.length
            state = Reports.state(block.state)
            token = block.token.map { "\($0)" }
            owner = block.owner.isEmpty ? nil : block.owner
        }
    }
    let changedBytes: UInt64
    let dataBytes: UInt64
    let zeroBytes: UInt64
    let holeBytes: UInt64

    init(_ sum: DiffSum) {
        changedBytes = sum.bytes
        dataBytes = sum.data
        zeroBytes = sum.zeros
        holeBytes = sum.holes
    }
}
