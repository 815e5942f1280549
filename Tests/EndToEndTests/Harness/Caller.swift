import CairnClient
import CairnCore
import CairnCrypto
import CairnRPC
import CairnTransport
import CairnWire
import Synchronization

/// One connection, and the contract's calls as they are: nothing is retried, nothing hidden.
final class Caller: Sendable {
    let connection: RPCConnection
    private let isVoid = Atomic(false)

    /// An answer that came after ``voidAnswers()``.
    struct VoidAnswer: Error {}

    /// From here on what comes in is no answer: those who ask do not know whether it was done.
    func voidAnswers() { isVoid.store(true, ordering: .sequentiallyConsistent) }

    init(_ connection: RPCConnection) { self.connection = connection }

    deinit { connection.close() }

    /// A whole answer, for comparing bytes.
    struct RawAnswer: Hashable, Sendable {
        let status: UInt32
        let message: [UInt8]
        let payload: [UInt8]
    }

    struct Reply<Response: WireMessage>: Sendable {
        let message: Response
        let payload: [UInt8]
    }

    /// Throws ``CallError`` where the server answered with one.
    func call<Request: WireRequest>(
        _ request: Request,
        payload: [UInt8] = [],
        timeout: Duration = .seconds(30)
    ) async throws -> Reply<Request.Response> {
        let answer = try await raw(request, payload: payload, timeout: timeout)
        guard answer.status == 0 else { throw CallError(status: answer.status, detail: answer.message) }
        return Reply(message: try Request.Response.decode(answer.message), payload: answer.payload)
    }

    func raw<Request: WireRequest>(
        _ request: Request,
        payload: [UInt8] = [],
        timeout: Duration = .seconds(30)
    ) async throws -> RawAnswer {
        try await raw(method: UInt32(Request.method.rawValue), request.encode(), payload: payload, timeout: timeout)
    }

    /// Throws ``RPCError`` where there was no answer.
    func raw(
        method: UInt32,
        _ message: [UInt8],
        payload: [UInt8] = [],
        timeout: Duration = .seconds(30)
    ) async throws -> RawAnswer {
        let slices = payload.isEmpty ? [] : [Buffer(copying: payload).slice]
        do {
            let answer = try await connection.call(
                CairnRPC.Request(method: method, message: message, payload: slices, timeout: timeout)
            )
            if isVoid.load(ordering: .sequentiallyConsistent) { throw VoidAnswer() }
            return RawAnswer(status: 0, message: answer.message, payload: answer.payload.map { Array($0.bytes) } ?? [])
        } catch let error as RPCError {
            guard error.code == .answered else { throw error }
            return RawAnswer(status: error.status, message: error.detail, payload: [])
        }
    }
}

extension ServerProcess {
    /// Connects with a certificate; throws ``RPCError``.
    func connect(
        _ credentials: Credentials,
        instance: [UInt8] = [],
        answering handler: (any CallHandler)? = nil
    ) async throws -> Caller {
        let tls = try TLSContext(
            .client,
            files: TLSFiles(
                authorities: [credentials.authorities],
                certificate: credentials.certificate,
                privateKey: credentials.privateKey
            )
        )
        let hello = Wire.Hello(protocolVersion: 1, agent: "e2e", instanceID: instance)
        return Caller(
            try await RPCConnection.connect(to: endpoint, tls: tls, hello: hello.encode(), handler: handler)
        )
    }

    func connect(
        _ account: String,
        instance: [UInt8] = [],
        answering handler: (any CallHandler)? = nil
    ) async throws -> Caller {
        try await connect(try credentials(account), instance: instance, answering: handler)
    }
}

/// The error that a call, ours or the library's, must be answered with.
func failure<Value>(
    of body: () async throws -> Value,
    file: String = #fileID,
    line: Int = #line
) async throws -> CallError {
    do {
        _ = try await body()
    } catch let error as CallError {
        return error
    } catch let error as ClientError {
        guard let answer = error.answer else { throw error }
        return answer
    }
    throw HarnessError("\(file):\(line): the call was answered as if all were well")
}
