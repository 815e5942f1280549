import ArgumentParser
import CairnServer
import CairnStore
import Foundation

struct Repair: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Check a store that no server has open, and mend what is damaged of its indexes.",
        discussion: """
            An index that is lost or damaged is made anew from its newest whole copy and the log behind it. Nothing is \
            deleted: what is no use is moved aside. It can be killed at any point, and run again.

            Exit codes: 0 all is well now, 1 only of --dry-run: there is something to mend, and nothing will be lost, 2 commits \
            are lost, and nothing was done without --accept-loss, 3 something cannot be mended, 64 wrong usage, 74 the store \
            cannot be opened. With several shards the highest of 0 to 3 counts.
            """
    )

    @Option(help: "The store's folder.")
    var data: String

    @Option(help: "Only this shard, from 0 on.")
    var shard: UInt16?

    @Flag(help: "Only look, and say what would be done.")
    var dryRun = false

    @Flag(help: "Go on without commits that cannot be read any more; every one after the first of them is lost too.")
    var acceptLoss = false

    @Flag(help: "One line of JSON for each shard.")
    var json = false

    func run() throws {
        var options = RepairOptions()
        options.shard = shard
        options.dryRun = dryRun
        options.acceptLoss = acceptLoss
        var worst: Int32 = 0
        do throws(ServerError) {
            try Server.repair(data: data, options) { report in
                worst = max(worst, Self.code(report.outcome))
                StandardOutput.write(json ? Self.line(report) : Self.text(report, dryRun: dryRun))
            }
        } catch {
            throw Exit.failing("\(error)", Exit.storeFailure)
        }
        if worst != 0 { throw ExitCode(worst) }
    }

    private static func code(_ outcome: ShardRepair.Outcome) -> Int32 {
        switch outcome {
        case .healthy, .repaired: 0
        case .repairable: 1
        case .wouldLose: 2
        case .beyondRepair: 3
        }
    }

    private static func line(_ report: ShardRepair) -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        return String(decoding: (try? encoder.encode(report)) ?? Data(), as: UTF8.self) + "\n"
    }

    private static func text(_ report: ShardRepair, dryRun: Bool) -> String {
        let outcome =
            switch report.outcome {
            case .healthy: "nothing to mend"
            case .repaired: "mended"
            case .repairable: "can be mended, and nothing is lost by it"
            case .wouldLose: "commits are lost: nothing was done; --accept-loss goes on without them"
            case .beyondRepair: "cannot be mended"
            }
        var lines = ["shard \(report.shard): \(outcome)"]
        lines += report.findings.map { "  found: \($0)" }
        lines += report.actions.map { (dryRun ? "  would: " : "  done: ") + $0 }
        lines += report.audit.prefix(10).map { "  audit: \($0)" }
        if report.lsn > 0 { lines.append("  the index holds everything up to LSN \(report.lsn)") }
        return lines.joined(separator: "\n") + "\n"
    }
}
