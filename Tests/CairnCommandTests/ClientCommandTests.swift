import CairnClient
import CairnCore
import CairnWire
import Testing

@testable import cairn

/// What the commands do without a server.
struct ClientCommandTests {
    static let volume = "vol-01234567-89ab-8def-8123-456789ab0001"
    static let snapshot = "snap-01234567-89ab-8def-8123-456789ab0001"

    @Test(arguments: [
        ["volume", "create", "--size", "20Gx"], ["volume", "show", "vol-1"], ["import", "x"],
        ["import", "x", "--new", "--volume", volume], ["import", "-", "--new"],
        ["import", "x", "--volume", volume, "--size", "1G"],
        ["import", "x", "--volume", volume, "--verify"], ["export", volume, "x", "--verify"], ["export", "x", "y"],
        ["status", "--server", "a:b"], ["status", "--timeout", "never"], ["status", "--connections", "65"],
        ["volume", "create", "--chunk-size", "5KiB"], ["volume", "list", "--tag", "x"],
        ["import", "x", "--resume"], ["import", "x", "--resume", "--new"],
        ["import", "x", "--resume", "--name", "n", "--size", "1G"],
        ["export", snapshot, "-", "--onto"], ["export", snapshot, "x", "--onto", "--force"],
        ["restore", snapshot, "-"],
        ["restore", volume, "x"], ["backup", "x"], ["backup", "x", "--volume", volume, "--create"],
        ["backup", "x", "--volume", "home", "--size", "1G"], ["backup", "x", "--volume", "vol-1"],
        ["diff", snapshot], ["diff", "a", "b"], ["usage", "--freed"], ["usage", "--affinity", ""], ["usage", "x"],
        ["grant", "create", "own", snapshot, "--to", "bob"], ["grant", "create", "use", "x", "--to", "bob"],
        ["grant", "create", "use", snapshot, "--to", "Bob"], ["grant", "delete", "use", snapshot],
        ["account", "limit", "acme"], ["account", "limit", "acme", "--volumes", "0"],
        ["account", "limit", "ACME", "--volumes", "1"], ["account", "limit", "acme", "--stored", "lots"],
        ["snapshot", "create"], ["snapshot", "progress", snapshot, "101"], ["snapshot", "progress", snapshot],
        ["snapshot", "tag", snapshot], ["volume", "tag", volume], ["volume", "discard", volume, "0"],
        ["volume", "discard", volume, "0", "0"], ["volume", "discard", volume, "1", "512"],
        ["volume", "discard", volume, "0", "1000"],
    ])
    func wrongUsageIs64(arguments: [String]) throws {
        #expect(try CairnCommand.run(arguments).status == 64)
    }

    @Test func everyCommandHasHelp() throws {
        for command in [
            ["volume", "create"], ["snapshot", "show"], ["import"], ["export"], ["status"], ["pki", "list"], [],
            ["backup"], ["restore"], ["diff"], ["usage"], ["grant"], ["grant", "create"], ["account", "limit"],
            ["snapshot", "progress"], ["snapshot", "missing"], ["snapshot", "tag"], ["volume", "attach"],
            ["volume", "discard"],
        ] {
            let outcome = try CairnCommand.run(command + ["--help"])
            #expect(outcome.status == 0 && outcome.output.contains("USAGE"))
        }
        #expect(try CairnCommand.run(["--generate-completion-script", "bash"]).output.contains("snapshot"))
    }

    @Test func errorsAreJSONOnDemand() throws {
        let outcome = try CairnCommand.run([
            "status", "--json", "--server", "127.0.0.1:1", "--identity", "/nowhere/app",
        ])
        #expect(outcome.status == 78 && outcome.output.isEmpty)
        #expect(outcome.errors.contains("\"reason\" : \"CONFIGURATION\""))
    }

    @Test func anInterruptedCommandStillTellsDamage() {
        let damaged = ClientError(.damaged, "a seal")
        let lost = ClientError(.answered, "a chunk", answer: CallError(.dataLoss))
        for error in [damaged, lost] {
            #expect(ExitCodes.code(of: Session.failure(error, wasInterrupted: true)).rawValue == 65)
        }
        #expect(Session.failure(damaged, wasInterrupted: true).text == "a seal")
        for error in [
            ClientError(.cancelled, ""), ClientError(.connectionLost, ""), ClientError(.target, "", errno: 28),
        ] {
            #expect(ExitCodes.code(of: Session.failure(error, wasInterrupted: true)).rawValue == 130)
        }
        #expect(Session.failure(ClientError(.connectionLost, ""), wasInterrupted: false).code == .connectionLost)
    }

    @Test func anErrorNamesTheVolumeThatWasMade() {
        let error = ClientError(.source, "x")
        let id = VolumeID(text: Self.volume)!
        #expect(Session.json(error, madeVolume: id).contains("\"volume_id\" : \"\(Self.volume)\""))
        #expect(!Session.json(error, madeVolume: nil).contains("volume_id"))
    }

    @Test func exitCodesStay() {
        func code(_ reason: Wire.Reason) -> Int32 {
            ExitCodes.code(of: ClientError(.answered, "", answer: CallError(reason))).rawValue
        }
        #expect(code(.invalidVolumeID) == 44 && code(.invalidSnapshotID) == 44)
        #expect(code(.dataLoss) == 65 && code(.checksumError) == 65)
        #expect(code(.unavailable) == 69 && code(.throttled) == 75 && code(.permissionDenied) == 77)
        #expect(code(.quotaExceeded) == 1)
        #expect(ExitCodes.code(of: ClientError(.unreachable, "")).rawValue == 69)
        #expect(ExitCodes.code(of: ClientError(.insecure, "")).rawValue == 77)
        #expect(ExitCodes.code(of: ClientError(.source, "")).rawValue == 66)
        #expect(ExitCodes.code(of: ClientError(.target, "", errno: 17)).rawValue == 73)
        #expect(ExitCodes.code(of: ClientError(.target, "", errno: 28)).rawValue == 74)
        #expect(ExitCodes.code(of: ClientError(.damaged, "")).rawValue == 65)
        #expect(ExitCodes.code(of: ClientError(.cancelled, "")).rawValue == 130)
        #expect(ExitCodes.reason(of: ClientError(.answered, "", answer: CallError(.storeFull))) == "STORE_FULL")
        #expect(ExitCodes.reason(of: ClientError(.timedOut, "")) == "TIMED_OUT")
        #expect(ExitCodes.reason(of: ClientError(.cancelled, "")) == "INTERRUPTED")
        #expect(ClientError(.cancelled, "").reason == "CANCELLED")
    }
}
