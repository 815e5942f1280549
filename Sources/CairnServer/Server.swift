import CairnCore
import CairnCrypto
import CairnRPC
import CairnService
public import CairnStore
import CairnTransport
import CairnWire
import Dispatch
import Logging
import Synchronization

/// Why a server could not start.
public struct ServerError: Error, Sendable, CustomStringConvertible {
    public enum Code: Sendable {
        /// A certificate, key or address of the configuration does not work.
        case configuration
        /// The address cannot be listened on.
        case unavailable
        /// The store cannot be made, opened or read.
        case store
    }
    public let code: Code
    public let description: String

    init(_ code: Code, _ description: String) {
        self.code = code
        self.description = description
    }
}

/// A running server: a store, the service over it, and the network in front.
public final class Server: Sendable {
    /// Where it listens; the port is the real one.
    public let endpoint: Endpoint
    private let configuration: Configuration
    private let store: Store
    private let service: Service
    private let network: RPCServer
    private let certificates: CertificateWatch
    private let logger: Logger
    /// What QueryChunks promises at the least (SPEC A1).
    private static let promisedLeaseSeconds = 15 * 60

    /// Makes an empty store in the folder `data`: once, before the first start.
    public static func initialize(data: String, shards: Int, segmentSize: UInt64) throws(ServerError) {
        do throws(StoreError) {
            var options = StoreCreation()
            options.shardCount = shards
            options.segmentBytes = segmentSize
            try Store.create(at: data, options)
        } catch {
            throw ServerError(.store, "\(error)")
        }
    }

    /// Checks the shards of a store that no server has open, and mends their indexes (`Store.repair`).
    public static func repair(
        data: String,
        _ options: RepairOptions,
        report: (ShardRepair) -> Void
    ) throws(ServerError) {
        do throws(StoreError) { try Store.repair(at: data, options, report: report) } catch {
            throw ServerError(.store, "\(error)")
        }
    }

    /// Opens the store, recovers it, and listens. When this returns, clients can come in.
    public static func start(_ configuration: Configuration, logger: Logger) throws(ServerError) -> Server {
        guard let listen = Endpoint(text: configuration.listen) else {
            throw ServerError(.configuration, "listen: `\(configuration.listen)` is no ADDRESS:PORT")
        }
        let tls = try loadTLS(configuration)
        let store: Store
        do throws(StoreError) {
            var options = StoreOptions()
            options.checkpointBytes = configuration.checkpointBytes
            options.indexBackupBytes = configuration.indexBackupBytes
            options.capacityBytes = configuration.capacity == 0 ? nil : configuration.capacity
            options.freeBytes = configuration.keepFree
            options.leaseTime = .seconds(configuration.leaseSeconds)
            options.scrubPeriod = configuration.scrubDays == 0 ? nil : .seconds(configuration.scrubDays * 86400)
            options.scrubBytesPerSecond = configuration.scrubBytesPerSecond
            options.logger = logger
            store = try Store.open(at: configuration.data, options)
        } catch {
            throw ServerError(.store, "\(error)")
        }
        do throws(ServerError) {
            return try Server(configuration, listen: listen, tls: tls, store: store, logger: logger)
        } catch {
            store.close()
            throw error
        }
    }

    private init(
        _ configuration: Configuration,
        listen: Endpoint,
        tls: TLSContext,
        store: Store,
        logger: Logger
    ) throws(ServerError) {
        self.configuration = configuration
        self.store = store
        self.logger = logger
        var options = ServiceOptions()
        options.defaultVolumeSize = configuration.defaultVolumeSize
        options.defaultChunkSize = ChunkSize(bytes: configuration.defaultChunkSize)!
        options.checksumOptional = configuration.checksumOptional
        options.leaseMilliseconds = UInt64(configuration.leaseSeconds) * 1000
        options.promptMilliseconds = UInt64(configuration.promptSeconds) * 1000
        options.snapshotIdleMilliseconds = UInt64(configuration.snapshotIdleSeconds) * 1000
        options.accountLimits = configuration.accountLimits
        if configuration.leaseSeconds < Self.promisedLeaseSeconds {
            logger.warning("lease-seconds is less than the 15 minutes that clients may count on: for tests alone")
        }
        options.logger = logger
        if configuration.workers > 0 { options.workers = configuration.workers }
        service = Service(store: store, options: options)
        let facts = ServerFacts(configuration: configuration, storeID: store.id.bytes, shardCount: store.shardCount)
        do throws(ServiceError) { try service.start() } catch { throw ServerError(.store, "\(error)") }
        var network = RPCServer.Options()
        let bytesInFlight =
            configuration.bytesInFlight ?? max(Configuration.bytesInFlightMinimum, MachineMemory.bytes / 4)
        let parts = RouterParts(service: service, facts: facts, throttle: Throttle(bytes: bytesInFlight))
        network.observer = parts.counters
        network.connections = Self.connections(configuration, shards: store.shardCount, logger: logger)
        network.connectionsPerAddress = configuration.maxConnectionsPerAddress
        network.rpc.answerBudgetBytes = Int(configuration.answerBytesPerConnection)
        self.network = RPCServer(
            tls: tls,
            authenticator: ClientAuthenticator(
                parts,
                connectionsPerAccount: configuration.maxConnectionsPerAccount == 0
                    ? max(1, network.connections - network.connections / 8) : configuration.maxConnectionsPerAccount,
                logger: logger
            ),
            options: network,
            loops: configuration.loops == 0 ? .shared : EventLoops(count: configuration.loops)
        )
        certificates = CertificateWatch(configuration)
        do throws(RPCError) {
            endpoint = try self.network.listen(at: listen)
        } catch {
            service.stop()
            throw ServerError(.unavailable, "cannot listen on \(configuration.listen): \(error)")
        }
        certificates.start { [network = self.network] in
            do throws(ServerError) {
                network.replaceTLS(try Server.loadTLS(configuration))
                logger.info("certificates read again")
            } catch {
                // The old ones stay in force: a half-written file must not lock everybody out.
                logger.error("certificates cannot be read again", metadata: ["reason": "\(error)"])
            }
        }
    }

    /// Descriptors that a shard's log and index have open at most, and those that the process has anyway: connections must not take
    /// them, or the store could not open its files.
    private static let descriptorsPerShard = 640
    private static let ownDescriptors = 128

    /// As many as are configured, if the system gives the process descriptors for them.
    private static func connections(_ configuration: Configuration, shards: Int, logger: Logger) -> Int {
        let limit = DescriptorLimit.raise()
        let left = max(limit / 4, limit - shards * descriptorsPerShard - ownDescriptors)
        guard left < configuration.maxConnections else { return configuration.maxConnections }
        logger.warning(
            "fewer connections than configured, for the limit of open files",
            metadata: [
                "connections": "\(left)", "max-connections": "\(configuration.maxConnections)", "limit": "\(limit)",
            ]
        )
        return left
    }

    private static func loadTLS(_ configuration: Configuration) throws(ServerError) -> TLSContext {
        for (name, value) in [("cert", configuration.cert), ("key", configuration.key), ("ca", configuration.ca)]
        where value.isEmpty {
            throw ServerError(.configuration, "\(name): not set")
        }
        do throws(TLSError) {
            return try TLSContext(
                .server,
                files: TLSFiles(
                    authorities: [configuration.ca],
                    certificate: configuration.cert,
                    privateKey: configuration.key,
                    revocations: configuration.crl.isEmpty ? nil : configuration.crl
                )
            )
        } catch {
            throw ServerError(.configuration, "\(error)")
        }
    }

    /// Reads certificates and the revocation list again at once.
    public func reloadCertificates() { certificates.reload() }

    /// Takes no new calls, finishes those in flight (within the configured limit), and closes the store in order.
    public func stop() async {
        certificates.stop()
        logger.info("draining", metadata: ["connections": "\(network.connectionCount)"])
        await network.drain(limit: .seconds(configuration.drainSeconds))
        service.stop()
        store.close()
        logger.info("stopped")
    }
}
