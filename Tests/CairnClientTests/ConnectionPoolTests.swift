import CairnCore
import CairnRPC
import CairnWire
import Dispatch
import Synchronization
import Testing

@testable import CairnClient

/// A connection whose calls do what the test says.
final class FakeLink: Link {
    typealias Behaviour = @Sendable (Request, @escaping @Sendable (Result<Answer, RPCError>) -> Void) -> Void
    private struct State {
        var isOpen = true
        var onClose: [@Sendable (RPCError?) -> Void] = []
    }
    private let state = Mutex(State())
    private let behaviour: Behaviour
    let cancels = Atomic<Int>(0)

    init(_ behaviour: @escaping Behaviour) { self.behaviour = behaviour }
    var isOpen: Bool { state.withLock { $0.isOpen } }
    var peerHello: [UInt8] { [] }
    func start(
        _ request: Request,
        completion: @escaping @Sendable (Result<Answer, RPCError>) -> Void
    ) -> @Sendable () -> Void {
        behaviour(request, completion)
        return {
            self.cancels.add(1, ordering: .relaxed)
            completion(.failure(RPCError(.cancelled, delivery: .unknown)))
        }
    }
    func onClose(_ body: @escaping @Sendable (RPCError?) -> Void) { state.withLock { $0.onClose.append(body) } }
    func close() {
        let bodies = state.withLock { state in
            state.isOpen = false
            return state.onClose
        }
        for body in bodies { body(nil) }
    }
}

/// What opened, with which instance ids.
final class Openings: Sendable {
    let instances = Mutex<[[UInt8]]>([])
}

struct ConnectionPoolTests {
    static func options(_ connections: Int) -> ClientOptions {
        var options = ClientOptions()
        options.connections = connections
        // Against hanging only: other tests may keep the processors for seconds. A test of a limit sets it shorter.
        options.callLimit = .seconds(60)
        options.connectLimit = .seconds(60)
        options.retry.firstWait = .milliseconds(5)
        options.retry.longestWait = .milliseconds(50)
        return options
    }

    static let facts = Answer(message: Wire.GetServerFactsResponse(identity: "alice").encode(), payload: nil)

    @Test func aCallOpensOneConnectionAndManyOpenMore() async throws {
        let openings = Openings()
        let waiting = Mutex<[@Sendable (Result<Answer, RPCError>) -> Void]>([])
        let pool = ConnectionPool(options: Self.options(3)) { instance in
            openings.instances.withLock { $0.append(instance) }
            return FakeLink { _, completion in waiting.withLock { $0.append(completion) } }
        }
        let calls = (0..<9).map { _ in Task { try await pool.call(Wire.GetServerFactsRequest()).0.identity } }
        try await limited { while waiting.withLock({ $0.count }) < 9 { try await Task.sleep(for: .milliseconds(1)) } }
        let instances = openings.instances.withLock { $0 }
        #expect(instances.count == 3 && Set(instances).count == 3, "each slot is an instance of its own")
        for completion in waiting.withLock({ $0 }) { completion(.success(Self.facts)) }
        for call in calls { #expect(try await call.value == "alice") }
        _ = try await limited {
            let call = Task { try await pool.call(Wire.GetServerFactsRequest()) }
            while waiting.withLock({ $0.count }) < 10 { try await Task.sleep(for: .milliseconds(1)) }
            waiting.withLock { $0[9] }(.success(Self.facts))
            return try await call.value.0
        }
        #expect(openings.instances.withLock { $0.count } == 3)
    }

    @Test func aLostCallIsRepeatedOverTheSameInstance() async throws {
        let openings = Openings()
        let pool = ConnectionPool(options: Self.options(4)) { instance in
            let count = openings.instances.withLock { list in
                list.append(instance)
                return list.count
            }
            let cell = Mutex<FakeLink?>(nil)
            let link = FakeLink { _, completion in
                if count == 1 {
                    cell.withLock { $0 }?.close()
                    completion(.failure(RPCError(.connectionLost, delivery: .unknown)))
                } else {
                    completion(.success(Self.facts))
                }
            }
            cell.withLock { $0 = link }
            return link
        }
        let answer = try await limited(.seconds(90)) { try await pool.call(Wire.GetServerFactsRequest()).0 }
        #expect(answer.identity == "alice")
        let instances = openings.instances.withLock { $0 }
        #expect(instances.count == 2 && instances[0] == instances[1])
    }

    @Test(
        "C5, S9: an upload with 100 that was answered UNAVAILABLE may have completed the snapshot; no other refusal may",
        arguments: [Wire.Reason.unavailable, .throttled]
    )
    func answeredAndMayBeCarriedOut(reason: Wire.Reason) async throws {
        let snapshot = SnapshotID(.random(shard: ShardIndex(0)))
        var description = Wire.SnapshotDescription()
        description.snapshotID = snapshot.bytes
        description.volumeID = VolumeID(.random(shard: ShardIndex(0))).bytes
        (description.state, description.chunkSize, description.dataVersion) = (.complete, 4096, 7)
        let described = Wire.DescribeSnapshotResponse(snapshot: description).encode()
        let uploads = Atomic<Int>(0)
        let pool = ConnectionPool(options: Self.options(1)) { _ in
            FakeLink { request, completion in
                guard request.method == UInt32(Wire.Method.uploadBlock.rawValue) else {
                    return completion(.success(Answer(message: described, payload: nil)))
                }
                let isFirst = uploads.add(1, ordering: .relaxed).newValue == 1
                let error = CallError(isFirst ? reason : .snapshotAlreadyComplete)
                let (status, detail) = (error.status.rawValue, error.detail.encode())
                completion(.failure(RPCError(.answered, delivery: .answered, status: status, detail: detail)))
            }
        }
        let block = BlockUpload(offset: 0, length: 4096, content: .zeros)
        let client = Client(caller: pool)
        let upload = Task { try await client.upload([block], to: .snapshot(snapshot), progress: 100) }
        if reason == .unavailable {
            let result = try await limited(.seconds(90)) { try await upload.value }
            #expect(result.dataVersion == DataVersion(7))
        } else {
            let error = await #expect(throws: ClientError.self) {
                try await limited(.seconds(90)) { try await upload.value }
            }
            #expect(error?.answer?.reason == .snapshotAlreadyComplete)
        }
        #expect(uploads.load(ordering: .relaxed) == 2)
    }

    @Test func aServerThatWasNeverThereIsGivenUpSoon() async throws {
        var options = Self.options(2)
        options.connectLimit = .milliseconds(300)
        let pool = ConnectionPool(options: options) { (_: [UInt8]) async throws(RPCError) -> any Link in
            throw RPCError(.unreachable, delivery: .notSent, text: "connection refused")
        }
        await #expect {
            try await limited(.seconds(90)) { try await pool.call(Wire.GetServerFactsRequest()).0 }
        } throws: {
            ($0 as? ClientError)?.code == .unreachable
        }
    }

    @Test func aServerThatComesBackIsFoundAgain() async throws {
        let tries = Atomic<Int>(0)
        let pool = ConnectionPool(options: Self.options(1)) { (_: [UInt8]) async throws(RPCError) -> any Link in
            let number = tries.add(1, ordering: .relaxed).newValue
            if (2...6).contains(number) { throw RPCError(.unreachable, delivery: .notSent) }
            let cell = Mutex<FakeLink?>(nil)
            let link = FakeLink { _, completion in
                completion(.success(Self.facts))
                cell.withLock { $0 }?.close()
            }
            cell.withLock { $0 = link }
            return link
        }
        _ = try await limited(.seconds(90)) { try await pool.call(Wire.GetServerFactsRequest()).0 }
        _ = try await limited(.seconds(90)) { try await pool.call(Wire.GetServerFactsRequest()).0 }
        #expect(tries.load(ordering: .relaxed) == 7)
    }

    @Test func aCancelledTaskCancelsItsCall() async throws {
        let calls = Atomic<Int>(0)
        let link = FakeLink { _, _ in calls.add(1, ordering: .relaxed) }
        let pool = ConnectionPool(options: Self.options(1)) { _ in link }
        let task = Task { try await pool.call(Wire.GetServerFactsRequest()).0 }
        while calls.load(ordering: .relaxed) == 0 { try await Task.sleep(for: .milliseconds(5)) }
        // The call's way to cancel it is noted just after it began.
        try await Task.sleep(for: .milliseconds(20))
        task.cancel()
        await #expect { try await limited(.seconds(90)) { try await task.value } } throws: {
            ($0 as? ClientError)?.code == .cancelled
        }
        #expect(link.cancels.load(ordering: .relaxed) == 1)
    }

    @Test func noCallWaitsForeverForAConnection() async throws {
        var options = Self.options(1)
        options.callLimit = .milliseconds(200)
        let pool = ConnectionPool(options: options) { (_: [UInt8]) async throws(RPCError) -> any Link in
            try? await Task.sleep(for: .seconds(3))
            throw RPCError(.unreachable, delivery: .notSent)
        }
        await #expect {
            try await limited(.seconds(90)) { try await pool.call(Wire.GetServerFactsRequest()).0 }
        } throws: {
            ($0 as? ClientError)?.code == .timedOut
        }
    }

    @Test func closingFailsWhatWaits() async throws {
        let pool = ConnectionPool(options: Self.options(1)) { (_: [UInt8]) async throws(RPCError) -> any Link in
            try? await Task.sleep(for: .seconds(2))
            throw RPCError(.unreachable, delivery: .notSent)
        }
        let task = Task { try await pool.call(Wire.GetServerFactsRequest()).0 }
        try await Task.sleep(for: .milliseconds(50))
        pool.close()
        await #expect { try await limited(.seconds(90)) { try await task.value } } throws: {
            ($0 as? ClientError)?.code == .connectionLost
        }
    }
}
