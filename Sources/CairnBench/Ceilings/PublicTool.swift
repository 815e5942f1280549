import Foundation

/// A primitive as a public tool measures it: a second opinion.
struct PublicTool: Sendable {
    let name: String
    let by: String
    let blockBytes: Int
    let program: String
    let arguments: [String]
    let note: String
    /// The rate in bytes a second that the tool's output tells.
    let rate: @Sendable (String) -> Double?

    /// Seconds after which a tool is ended.
    private static let limit = 900

    static func all(_ ceilings: Ceilings) -> [PublicTool] {
        let seconds = max(1, Int(ceilings.seconds.rounded()))
        let block = ceilings.blockBytes
        func speed(_ name: String, _ algorithm: String) -> PublicTool {
            PublicTool(
                name: name,
                by: "openssl speed",
                blockBytes: block,
                program: "openssl",
                arguments: ["speed", "-mr", "-seconds", "\(seconds)", "-bytes", "\(block)", "-evp", algorithm],
                note: "",
                rate: openssl
            )
        }
        let file = ceilings.folder + "/cairn-fio-\(getpid())"
        return [
            speed("SHA-256", "sha256"), speed("AES-128-GCM", "aes-128-gcm"),
            PublicTool(
                name: "LZ4 compress, synthetic",
                by: "lz4 -b",
                blockBytes: block,
                program: "lz4",
                arguments: ["-b1", "-i\(seconds)", "-B\(block)"],
                note: "CPU holds decompression too",
                rate: { lz4($0) }
            ),
            PublicTool(
                name: "write 1 MiB O_DIRECT + fdatasync",
                by: "fio",
                blockBytes: 1 << 20,
                program: "fio",
                arguments: [
                    "--name=write", "--filename=\(file)", "--size=\(ceilings.fileBytes)", "--rw=write", "--overwrite=1",
                    "--bs=1M", "--direct=1", "--fdatasync=1", "--ioengine=psync", "--time_based",
                    "--runtime=\(seconds)",
                    "--unlink=1", "--output-format=json",
                ],
                note: "CPU holds the laying out too",
                rate: fio
            ),
        ]
    }

    /// - Throws: `machine` where it is not installed, fails, or says something else than it used to.
    func measure() throws(BenchError) -> Primitive {
        let folders = (ProcessInfo.processInfo.environment["PATH"] ?? "/usr/bin").split(separator: ":")
        guard
            let path = folders.map({ folder -> String in "\(folder)/\(program)" })
                .first(where: { access($0, X_OK) == 0 })
        else {
            throw BenchError(.machine, "\(program) is not installed: tools/setup --for bench")
        }
        let (started, before) = (Time.now(), CPUTime.ofChildren())
        let output = try run(path)
        let span = Double(Time.now() - started) / 1e9
        let cpu = CPUTime.ofChildren() - before
        guard let rate = rate(output), rate > 0 else {
            throw BenchError(.machine, "\(program) said something unexpected: \(output.suffix(200))")
        }
        return Primitive(
            name: name,
            by: by,
            blockBytes: blockBytes,
            seconds: span,
            bytes: 0,
            operations: 0,
            bytesPerSecond: rate,
            operationsPerSecond: rate / Double(blockBytes),
            cpuSeconds: CPUSeconds(cpu),
            // The tools tell no count of bytes that goes with their processor time: a part of it is other work.
            cpuSecondsPerGib: nil,
            cpuUsPerOperation: nil,
            note: note
        )
    }

    private func run(_ path: String) throws(BenchError) -> String {
        let process = Process()
        let pipe = Pipe()
        // None of them may hang: they work for seconds.
        process.executableURL = URL(fileURLWithPath: "/usr/bin/timeout")
        process.arguments = ["\(Self.limit)", path] + arguments
        process.standardOutput = pipe
        process.standardError = pipe
        process.standardInput = FileHandle.nullDevice
        // The pool's threads block all signals, their children inherit that, and `openssl speed` ends by one.
        var (none, before) = (sigset_t(), sigset_t())
        sigemptyset(&none)
        pthread_sigmask(SIG_SETMASK, &none, &before)
        defer { pthread_sigmask(SIG_SETMASK, &before, nil) }
        do { try process.run() } catch { throw BenchError(.machine, "\(program) cannot be started") }
        let data = pipe.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        let text = String(decoding: data, as: UTF8.self)
        guard process.terminationStatus == 0 else {
            throw BenchError(.machine, "\(program) failed: \(text.suffix(200))")
        }
        return text
    }

    /// `+F:22:SHA256:1658934567.42`
    static func openssl(_ text: String) -> Double? {
        let line = text.split(separator: "\n").last { $0.hasPrefix("+F:") }
        return line?.split(separator: ":").last.flatMap { Double($0) }
    }

    /// ` 1#Lorem ipsum : 10000000 -> 5858114 (1.707), 742.1 MB/s ,4217.0 MB/s`, the line rewritten as it goes on: the last figures
    /// count.
    static func lz4(_ text: String) -> Double? {
        let figures = text.matches(of: /\),\s*([0-9.]+) MB\/s/)
        return figures.last.flatMap { Double($0.1) }.map { $0 * 1e6 }
    }

    static func fio(_ text: String) -> Double? {
        struct Report: Decodable {
            struct Job: Decodable {
                struct Side: Decodable { let bw_bytes: Double }
                let write: Side
            }
            let jobs: [Job]
        }
        guard let start = text.firstIndex(of: "{") else { return nil }
        let report = try? JSONDecoder().decode(Report.self, from: Data(text[start...].utf8))
        return report?.jobs.first?.write.bw_bytes
    }
}
