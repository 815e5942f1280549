import ArgumentParser
import CairnBench
import Foundation

struct CeilingsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ceilings",
        abstract: "Measures what this machine can do at all.",
        discussion: """
            SHA-256, LZ4, TLS on each side over loopback, small calls over TLS that nobody looks at, writes past the page cache with \
            and without fdatasync, reads, and puts into RocksDB: each alone and on one thread (RocksDB compacts on others), by C code \
            that shares nothing with the server. SHA-256 and TLS twice where the processor has vectors: as OpenSSL does it, one \
            message at a time; and the best that is known here, by Intel's libipsec-mb: 16 messages side by side, and TLS's \
            records by vector AES, without OpenSSL. Then `openssl speed`, `lz4 -b` and `fio`, where they are installed, as a \
            second opinion. CPU is user and kernel time; that of TLS is each side's own. Leave the machine alone meanwhile.
            """
    )

    @Option(help: "Seconds for each.")
    var seconds = 3.0

    @Option(help: "A folder on the disk that is to be measured.", completion: .directory)
    var folder = "/var/tmp"

    @Option(help: "Bytes of the file that is written and read.")
    var fileSize = ByteSize(argument: "256MiB")!

    @Option(help: "Bytes that are hashed, compressed or sent at once.")
    var block = ByteSize(argument: "64KiB")!

    @Option(help: "Measure only what has a name that begins so; may be given again.")
    var only: [String] = []

    @Flag(help: "Leave the public tools out.")
    var noTools = false

    @Option(name: .customLong("json"), help: "Write all figures to this file.", completion: .file(extensions: ["json"]))
    var jsonFile: String?

    private var ceilings: Ceilings {
        var ceilings = Ceilings(seconds: seconds, folder: folder)
        ceilings.fileBytes = fileSize.bytes
        ceilings.blockBytes = Int(clamping: block.bytes)
        ceilings.only = only
        return ceilings
    }

    func validate() throws {
        do { try ceilings.validate() } catch { throw ValidationError(error.text) }
    }

    func run() throws {
        signal(SIGPIPE, SIG_IGN)
        let isTerminal = isatty(STDERR_FILENO) == 1
        func show(_ text: String) { if isTerminal { FileHandle.standardError.write(Data("\r\(text)\u{1b}[K".utf8)) } }
        let file = ceilings.measure(tools: !noTools) { show("measuring: \($0)") }
        show("")
        print(file.text, terminator: "")
        try Failures.exit { () throws(BenchError) in
            guard let jsonFile else { return }
            try BenchFile.write(BenchFile.json(file), to: jsonFile)
        }
        // Public tools are extra; what is our own must work.
        guard file.missing.keys.allSatisfy({ $0.contains(" by ") }) else { throw ExitCode(69) }
    }
}
