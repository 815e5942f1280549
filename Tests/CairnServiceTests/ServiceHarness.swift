import CairnCore
import CairnCrypto
import CairnStore
import CairnWire
import Foundation
import Synchronization

@testable import CairnService

/// A service over a store in a temporary folder; calls block until they are answered.
final class ServiceHarness: Sendable {
    let folder: String
    let store: Store
    let service: Service

    init(
        chunkSize: Int = 65536,
        shards: Int = 2,
        segmentBytes: UInt64 = 32 << 20,
        _ configure: (inout StoreOptions, inout ServiceOptions) -> Void = { _, _ in }
    ) throws {
        folder = NSTemporaryDirectory() + "cairn-service-" + UUID().uuidString
        var creation = StoreCreation()
        creation.shardCount = shards
        creation.segmentBytes = segmentBytes
        try Store.create(at: folder, creation)
        (store, service) = try Self.open(folder, chunkSize, configure)
    }

    /// What a restart finds: the other one is closed, and its folder is copied, for RocksDB stays in it while anything of the
    /// other one lives.
    init(
        restarting other: ServiceHarness,
        _ configure: (inout StoreOptions, inout ServiceOptions) -> Void = { _, _ in }
    ) throws {
        other.close()
        folder = NSTemporaryDirectory() + "cairn-service-" + UUID().uuidString
        try FileManager.default.copyItem(atPath: other.folder, toPath: folder)
        (store, service) = try Self.open(folder, other.service.options.defaultChunkSize.bytes, configure)
    }

    private static func open(
        _ folder: String,
        _ chunkSize: Int,
        _ configure: (inout StoreOptions, inout ServiceOptions) -> Void
    ) throws -> (Store, Service) {
        var storeOptions = StoreOptions()
        var options = ServiceOptions()
        options.defaultChunkSize = ChunkSize(bytes: chunkSize)!
        options.defaultVolumeSize = 4 << 20
        configure(&storeOptions, &options)
        let store = try Store.open(at: folder, storeOptions)
        let service = Service(store: store, options: options)
        try service.start()
        return (store, service)
    }

    private let isClosed = Mutex(false)

    private func close() {
        let isFirst = isClosed.withLock { isClosed in
            defer { isClosed = true }
            return !isClosed
        }
        guard isFirst else { return }
        service.stop()
        store.close()
    }

    deinit {
        close()
        try? FileManager.default.removeItem(atPath: folder)
    }

    /// Waits until `condition` holds; false when it does not within the limit, which is against hanging only.
    func eventually(_ seconds: Double = 20, _ condition: () throws -> Bool) rethrows -> Bool {
        let end = Date() + seconds
        while Date() < end {
            if try condition() { return true }
            Thread.sleep(forTimeInterval: 0.02)
        }
        return try condition()
    }

    static let alice = CallContext(account: AccountID("alice")!)
    static let bob = CallContext(account: AccountID("bob")!)

    typealias Served<Request, Response> = (Request, CallContext, @escaping Answer<Response>) -> Void

    /// Makes a call and waits for its answer, 30 s at most.
    func call<Request, Response: Sendable>(
        _ served: Served<Request, Response>,
        _ request: Request,
        as context: CallContext = alice
    ) throws -> Response {
        let waiter = Waiter<Response>()
        served(request, context) { waiter.set($0) }
        return try waiter.get()
    }

    func upload(
        _ request: Wire.UploadBlockRequest,
        payload: [UInt8] = [],
        as context: CallContext = alice
    ) throws -> Wire.UploadBlockResponse {
        let waiter = Waiter<Wire.UploadBlockResponse>()
        let buffer = payload.isEmpty ? nil : Buffer(copying: payload).slice
        service.uploadBlock(request, payload: buffer, context) { waiter.set($0) }
        return try waiter.get()
    }

    func createVolume(_ request: Wire.CreateVolumeRequest = .init(), as context: CallContext = alice) throws
        -> Wire.CreateVolumeResponse
    {
        try call(service.createVolume, request, as: context)
    }

    /// Uploads plain bytes at an offset, with a CRC32C.
    @discardableResult
    func write(_ bytes: [UInt8], at offset: UInt64, to volume: [UInt8]) throws -> Wire.UploadBlockResponse {
        var request = Wire.UploadBlockRequest()
        request.target = Wire.Target(target: .volumeID(volume))
        request.blocks = [Self.block(bytes, at: offset)]
        return try upload(request, payload: bytes)
    }

    static func block(_ bytes: [UInt8], at offset: UInt64) -> Wire.UploadBlock {
        var block = Wire.UploadBlock()
        block.offset = offset
        block.length = UInt32(bytes.count)
        block.codec = .plain
        block.checksum = Wire.Checksum(
            algorithm: .crc32c,
            value: bytes.withUnsafeBytes { Checksum.encode(CRC32C.extend(0, $0)) }
        )
        block.source = .payloadLength(UInt32(bytes.count))
        return block
    }

    /// The bytes of a range, put together from whatever blocks come back.
    func read(_ target: Wire.Target.Target, _ offset: UInt64, _ length: UInt64, acceptLZ4: Bool = true) throws
        -> [UInt8]
    {
        var request = Wire.DownloadBlockRequest()
        request.target = Wire.Target(target: target)
        request.ranges = [Wire.ByteRange(offset: offset, length: length)]
        request.acceptedCodecs = acceptLZ4 ? [.lz4] : []
        let download = try call(service.downloadBlock, request)
        return try Self.bytes(of: download)
    }

    static func bytes(of download: Download) throws -> [UInt8] {
        var payload = download.payload.flatMap { Array($0.bytes) }[...]
        var bytes: [UInt8] = []
        for block in download.message.blocks {
            switch block.content {
            case .payloadLength(let count):
                let stored = Array(payload.prefix(Int(count)))
                payload = payload.dropFirst(Int(count))
                var raw = stored
                if block.codec == .lz4 {
                    raw = [UInt8](repeating: 0, count: Int(block.length))
                    let isWhole = stored.withUnsafeBytes { from in
                        raw.withUnsafeMutableBytes { LZ4.decompress(from, into: $0) }
                    }
                    guard isWhole else { throw ServiceError(.dataLoss, "LZ4") }
                }
                guard let checksum = block.checksum,
                    raw.withUnsafeBytes({ Checksum.value(checksum.algorithm, over: $0) }) == checksum.value
                else { throw ServiceError(.checksumError, "block at \(block.offset)") }
                bytes += raw
            default: bytes += [UInt8](repeating: 0, count: Int(block.length))
            }
        }
        return bytes
    }
}

/// A result that another thread gives.
final class Waiter<Value: Sendable>: @unchecked Sendable {
    private let done = DispatchSemaphore(value: 0)
    // Safety: written before the signal, read after it.
    private var result: Result<Value, ServiceError>?

    func set(_ result: Result<Value, ServiceError>) {
        self.result = result
        done.signal()
    }

    func get() throws -> Value {
        guard done.wait(timeout: .now() + 30) == .success, let result else {
            throw ServiceError(.deadlineExceeded, "no answer in 30 s")
        }
        return try result.get()
    }
}

/// Repeatable bytes that do not compress.
func noise(_ count: Int, seed: UInt64) -> [UInt8] {
    var state = seed &* 0x9e37_79b9_7f4a_7c15 | 1
    return (0..<count).map { _ in
        state ^= state << 13
        state ^= state >> 7
        state ^= state << 17
        return UInt8(truncatingIfNeeded: state >> 24)
    }
}

/// A call that nobody made.
private final class CallStandIn: OngoingCall {
    private let gone: @Sendable () -> Bool
    private let room: @Sendable (Int) throws(ServiceError) -> Void

    init(
        isCancelled: @escaping @Sendable () -> Bool = { false },
        makeRoom: @escaping @Sendable (Int) throws(ServiceError) -> Void = { _ in }
    ) {
        (gone, room) = (isCancelled, makeRoom)
    }
    var isCancelled: Bool { gone() }
    func makeRoom(_ bytes: Int) throws(ServiceError) { try room(bytes) }
}

extension CallContext {
    init(account: AccountID, isCancelled: @escaping @Sendable () -> Bool) {
        self.init(account: account, call: CallStandIn(isCancelled: isCancelled))
    }
    init(account: AccountID, makeRoom: @escaping @Sendable (Int) throws(ServiceError) -> Void) {
        self.init(account: account, call: CallStandIn(makeRoom: makeRoom))
    }
}
