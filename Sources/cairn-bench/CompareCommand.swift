import ArgumentParser
import CairnBench

struct CompareCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "compare",
        abstract: "Says what changed beyond noise between two files of `run --json`.",
        discussion: Comparison.rule
    )

    @Argument(help: "The file of before.", completion: .file(extensions: ["json"]))
    var before: String

    @Argument(help: "The file of after.", completion: .file(extensions: ["json"]))
    var after: String

    @Option(help: "Changes of medians below so many percent are never reported.")
    var threshold = 2.0

    @Flag(help: "End with exit code 1 when something changed.")
    var failOnChange = false

    func validate() throws {
        guard (0...1000).contains(threshold) else { throw ValidationError("--threshold is a percentage.") }
    }

    func run() throws {
        let comparison = try Failures.exit { () throws(BenchError) in
            Comparison(try BenchFile.read(before), try BenchFile.read(after), threshold: threshold / 100)
        }
        print(comparison.text, terminator: "")
        if failOnChange, comparison.changes.contains(where: { $0.verdict != .noise && $0.verdict != .tooFew }) {
            throw ExitCode(1)
        }
    }
}

struct ReportCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "report",
        abstract: "Makes the page of `run --report` from files of `run --json`.",
        discussion: "Runs of several files stand beside each other in the plots."
    )

    @Argument(help: "Files of `run --json`.", completion: .file(extensions: ["json"]))
    var files: [String]

    @Option(name: .shortAndLong, help: "The page.", completion: .file(extensions: ["html"]))
    var output: String

    func validate() throws {
        guard !files.isEmpty else { throw ValidationError("name a file.") }
    }

    func run() throws {
        try Failures.exit { () throws(BenchError) in
            var all = try BenchFile.read(files[0])
            for path in files.dropFirst() { all.runs += try BenchFile.read(path).runs }
            try HTMLReport(all).write(to: output)
        }
    }
}
