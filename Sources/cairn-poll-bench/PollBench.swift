import CairnCore
import CairnCrypto
import CairnRPC
import CairnTransport
import CairnWire
import Foundation
import Synchronization

/// Measures calls over loopback with one kind of loop: both sides in this process, one loop each.
///
///     cairn-poll-bench thread|dispatch [SECONDS]
///
/// Prints one line for each load: its name, calls a second, processor microseconds a call (both sides).
@main struct PollBench {
    static func main() async throws {
        let arguments = CommandLine.arguments
        guard arguments.count >= 2, let kind = kind(named: arguments[1]),
            let seconds = Double(arguments.count > 2 ? arguments[2] : "2")
        else {
            FileHandle.standardError.write(Data("usage: cairn-poll-bench thread|dispatch [SECONDS]\n".utf8))
            exit(64)
        }
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent(
            "cairn-poll-bench-\(UUID().uuidString)"
        ).path
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: false)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let bench = try Bench(folder: folder, kind: kind)
        try await bench.run("unbatched-8-connections", connections: 8, inFlight: 1, payload: nil, seconds: seconds)
        try await bench.run("64-in-flight-1-connection", connections: 1, inFlight: 64, payload: nil, seconds: seconds)
        try await bench.run(
            "upload-1MiB-4-connections",
            connections: 4,
            inFlight: 4,
            payload: 1 << 20,
            seconds: seconds
        )
        bench.server.stop()
    }

    private static func kind(named name: String) -> LoopKind? {
        switch name {
        case "thread": .thread
        case "dispatch": .dispatch
        default: nil
        }
    }
}

/// Echoes messages and discards payloads, on the loop.
private final class Echo: CallHandler {
    func handle(_ call: IncomingCall) { call.reply(message: call.message) }
}

private final class Welcome: Authenticator {
    private let echo = Echo()
    func authenticate(_ applicant: Applicant, decide: @escaping @Sendable (Admission) -> Void) {
        decide(.accept(context: (), hello: [], handler: echo))
    }
}

private struct Bench {
    let server: RPCServer
    let endpoint: Endpoint
    let clientTLS: TLSContext
    let clientLoops: EventLoops

    init(folder: String, kind: LoopKind) throws {
        let authority = try CertificateAuthority.create(in: folder + "/ca")
        func files(_ credentials: CertificateAuthority.Credentials) -> TLSFiles {
            TLSFiles(
                authorities: [authority.certificatePath],
                certificate: credentials.certificatePath,
                privateKey: credentials.keyPath
            )
        }
        let address = AlternativeName.Address(bytes: [127, 0, 0, 1])!
        let serverFiles = files(try authority.issueServer(CredentialName("server"), names: [.address(address)]))
        clientTLS = try TLSContext(
            .client,
            files: files(try authority.issueClient(CredentialName("client"), identity: .admin))
        )
        server = RPCServer(
            tls: try TLSContext(.server, files: serverFiles),
            authenticator: Welcome(),
            loops: EventLoops(count: 1, on: kind)
        )
        endpoint = try server.listen(at: Endpoint(host: "127.0.0.1", port: 0))
        clientLoops = EventLoops(count: 1, on: kind)
    }

    func run(_ name: String, connections: Int, inFlight: Int, payload: Int?, seconds: Double) async throws {
        var clients: [RPCConnection] = []
        for _ in 0..<connections {
            clients.append(try await RPCConnection.connect(to: endpoint, tls: clientTLS, hello: [], loops: clientLoops))
        }
        var slices: [BufferSlice] = []
        if let payload {
            let buffer = BufferPool.shared.buffer(capacity: payload)
            buffer.count = payload
            slices = [buffer.slice]
        }
        let load = Load(request: Request(method: 1, message: [UInt8](repeating: 1, count: 64), payload: slices))
        for client in clients { for _ in 0..<inFlight { load.call(client) } }
        try await Task.sleep(for: .milliseconds(200))
        let (calls, processor, clock) = (load.calls, processorSeconds(), ContinuousClock.now)
        try await Task.sleep(for: .seconds(seconds))
        let elapsed = ContinuousClock.now - clock
        let count = Double(load.calls - calls)
        let used = processorSeconds() - processor
        load.stop()
        for client in clients { client.close() }
        let duration = Double(elapsed.components.seconds) + Double(elapsed.components.attoseconds) * 1e-18
        print(name, Int(count / duration), String(format: "%.1f", used / max(count, 1) * 1e6))
    }

    private func processorSeconds() -> Double {
        var time = timespec()
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) * 1e-9
    }
}

/// Calls again as soon as an answer is there.
private final class Load: Sendable {
    private let request: Request
    private let count = Atomic<Int>(0)
    private let isStopped = Atomic<Bool>(false)

    init(request: Request) { self.request = request }

    var calls: Int { count.load(ordering: .relaxed) }
    func stop() { isStopped.store(true, ordering: .relaxed) }

    func call(_ client: RPCConnection) {
        client.call(request) { [self] result in
            guard case .success = result, !isStopped.load(ordering: .relaxed) else { return }
            count.add(1, ordering: .relaxed)
            call(client)
        }
    }
}
