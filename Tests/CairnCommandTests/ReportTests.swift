import CairnCore
import CairnRPC
import CairnWire
import Testing

@testable import CairnClient
@testable import cairn

/// What commands show of the library's answers.
struct ReportTests {
    static func snapshot(_ owners: [Wire.OwnerShare], state: Wire.SnapshotState = .complete) throws -> Snapshot {
        var description = Wire.SnapshotDescription()
        description.snapshotID = UUID128.random(shard: ShardIndex(0)).bytes
        description.volumeID = UUID128.random(shard: ShardIndex(0)).bytes
        description.account = "acme"
        description.chunkSize = 4096
        description.state = state
        description.owners = owners
        return try Snapshot(description)
    }

    @Test("D5: owners are told with their shares, and whose permission an export lacks")
    func owners() throws {
        let mixed = try Self.snapshot([
            .init(account: "acme", bytes: 3 << 20, exportable: true),
            .init(account: "bob", bytes: 1 << 20, exportable: false),
        ])
        let text = OwnerText.text(mixed)
        #expect(text.contains("75.0 %") && text.contains("25.0 %"))
        #expect(text.contains("1 MiB belong to bob") && text.contains("--to acme"))
        let own = try Self.snapshot([.init(account: "acme", bytes: 1, exportable: true)])
        #expect(OwnerText.refusal(own) == nil && OwnerText.text(own).contains("100.0 %"))
        #expect(try OwnerText.text(Self.snapshot([])).contains("no owners"))
        #expect(try OwnerText.text(Self.snapshot([], state: .inProgress)).contains("complete snapshot"))
    }

    @Test("D5: a grant tells who gave it")
    func grantor() throws {
        let grant = try Grant(Wire.Grant(grantee: "bob", permission: .use, grantor: "alice"))
        #expect(Output.json(GrantReport(grant)).contains("\"grantor\" : \"alice\""))
        #expect(GrantCommands.List.row(grant).prefix(4) == ["use", "account", "alice", "bob"])
    }

    @Test("S6, S8: an interrupted backup is told to go on only with what may be in progress")
    func advice() {
        let id = SnapshotID(.random(shard: ShardIndex(1)))
        for phase in [Backup.Phase.preparing, .scanning, .uploading, .completing] {
            #expect(BackupCommand.advice(id, phase).contains("--resume"))
        }
        #expect(BackupCommand.advice(id, .completing).contains("may be complete"))
        let sealing = BackupCommand.advice(id, .sealing)
        #expect(sealing.contains("is complete") && sealing.contains("not compared") && !sealing.contains("--resume"))
    }

    @Test("R1: a difference is summed by what the blocks are now")
    func difference() {
        var sum = DiffSum()
        #expect(sum.text == "nothing differs")
        sum.add(BlockDescription(offset: 0, length: 4096, state: .data))
        sum.add(BlockDescription(offset: 8192, length: 2048, state: .hole))
        sum.add(BlockDescription(offset: 16384, length: 1024, state: .zeros))
        #expect(sum.bytes == 7168 && sum.blocks == 3)
        #expect(sum.text == "7 KiB differ: 4 KiB of data, 1 KiB of zeros, 2 KiB of holes")
    }

    /// All of what `diff --json` shows, as one value.
    private struct WholeDiff: Encodable {
        let blocks: [DiffReport.Block]
        let changedBytes, dataBytes, zeroBytes, holeBytes: UInt64
    }

    @Test("R1: a difference in pieces is the same document as in one", arguments: 0..<4)
    func differenceInPieces(count: Int) {
        let states: [BlockDescription.State] = [.data, .zeros, .hole]
        let token = Fingerprint(bytes: [UInt8](repeating: 7, count: 32))
        let blocks = (0..<count).map { index in
            BlockDescription(
                offset: UInt64(index) * 8192,
                length: 4096,
                state: states[index],
                token: index == 0 ? token : nil,
                owner: index == 1 ? "" : "a/b"
            )
        }
        var document = DiffDocument()
        var sum = DiffSum()
        var lines: [String] = []
        for block in blocks {
            lines.append(document.add(block))
            sum.add(block)
        }
        lines.append(document.end())
        let whole = WholeDiff(
            blocks: blocks.map { DiffReport.Block($0) },
            changedBytes: sum.bytes,
            dataBytes: sum.data,
            zeroBytes: sum.zeros,
            holeBytes: sum.holes
        )
        #expect(lines.joined(separator: "\n") == Output.json(whole))
    }

    @Test("S6: a seal that is not told in time is pending, with the reason: the import and its snapshot are reported")
    func pendingSeal() async throws {
        let id = SnapshotID(.random(shard: ShardIndex(0)))
        let command = try ImportCommand.parse(["x", "--new", "--snapshot", "--verify"])
        let ours = Fingerprint(bytes: [UInt8](repeating: 7, count: 32))!
        let other = Fingerprint(bytes: [UInt8](repeating: 8, count: 32))!
        func compared(_ seal: Wire.Seal?) async -> ImportCommand.Comparison {
            let client = Client(caller: SealTeller(seal))
            return await command.compare(ours, with: id, client, within: .milliseconds(100))
        }
        let pending = await compared(Wire.Seal(pending: true))
        #expect(pending.check == .pending && pending.failure?.code == .timedOut)
        let matched = await compared(Wire.Seal(pending: false, value: ours.bytes))
        #expect(matched.check == .matched && matched.failure == nil)
        #expect(await compared(Wire.Seal(pending: false, value: other.bytes)).check == .differs)
    }

    @Test func limitsAreCountsSizesOrNone() {
        #expect(CountLimit(argument: "none")?.value == 0 && CountLimit(argument: "7")?.value == 7)
        #expect(CountLimit(argument: "0") == nil && CountLimit(argument: "-1") == nil)
        #expect(ByteLimit(argument: "2TiB")?.value == 2 << 40 && ByteLimit(argument: "none")?.value == 0)
        #expect(ByteLimit(argument: "0") == nil)
    }

    @Test func volumesGoByIDOrName() {
        #expect(VolumeArgument(argument: "home") == .name("home"))
        #expect(VolumeArgument(argument: "vol-1") == nil && VolumeArgument(argument: "") == nil)
        let id = VolumeID(.random(shard: ShardIndex(1)))
        #expect(VolumeArgument(argument: "\(id)") == .id(id))
    }

    @Test func grantsAreOnVolumesSnapshotsOrTheAccount() {
        let id = SnapshotID(.random(shard: ShardIndex(1)))
        #expect(ResourceArgument(argument: "account")?.resource == .account)
        #expect(ResourceArgument(argument: "\(id)")?.resource == .snapshot(id))
        #expect(ResourceArgument(argument: "snap-x") == nil)
        #expect(Permission(argument: "export") == .export && Permission(argument: "read") == nil)
    }

    @Test func aScanShowsNothingSent() {
        var progress = TransferProgress()
        progress.total = 100
        progress.done = 50
        #expect(!ProgressLine.render(progress, verb: "scan", rate: 0, width: 120).contains("sent"))
        #expect(ProgressLine.render(progress, verb: "backup", rate: 0, width: 120).contains("sent"))
        #expect(ProgressLine.render(progress, verb: "restore", rate: 0, width: 120).contains("received"))
    }
}

/// Answers every call with the description of a complete snapshot that has this seal.
private final class SealTeller: Caller {
    private let answer: [UInt8]

    init(_ seal: Wire.Seal?) {
        var description = Wire.SnapshotDescription()
        description.snapshotID = UUID128.random(shard: ShardIndex(0)).bytes
        description.volumeID = UUID128.random(shard: ShardIndex(0)).bytes
        (description.chunkSize, description.state, description.seal) = (4096, .complete, seal)
        answer = Wire.DescribeSnapshotResponse(snapshot: description).encode()
    }

    private final class NoCancel: Cancellable { func cancel() {} }
    func start(
        _ call: OutgoingCall,
        completion: @escaping @Sendable (Result<Answer, ClientError>) -> Void
    ) -> any Cancellable {
        completion(.success(Answer(message: answer, payload: nil)))
        return NoCancel()
    }
}
