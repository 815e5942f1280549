import CairnCore
import CairnCrypto
import CairnRPC
import CairnService
import CairnWire
import Logging
import Synchronization

/// Decides who comes in (SPEC C1), and lets a client's new connection follow its old one (SPEC C5).
final class ClientAuthenticator: Authenticator {
    /// What stays with a connection.
    struct Peer: Sendable {
        let identity: PeerIdentity
    }

    private struct Instance: Hashable {
        let identity: PeerIdentity
        let id: [UInt8]
    }

    private let parts: RouterParts
    private let logger: Logger
    /// The connections of each client instance of which something may yet come: also those that are lost while their last
    /// calls are being carried out.
    private let instances = Mutex<[Instance: [RPCConnection]]>([:])
    private let connectionsPerAccount: Int
    private let connections = Mutex(Tally<AccountID>())

    /// - Parameter connectionsPerAccount: those that one account may have.
    init(_ parts: RouterParts, connectionsPerAccount: Int, logger: Logger) {
        self.parts = parts
        self.connectionsPerAccount = connectionsPerAccount
        self.logger = logger
    }

    func authenticate(_ applicant: Applicant, decide: @escaping @Sendable (Admission) -> Void) {
        let hello: Wire.Hello
        do throws(WireError) {
            hello = try Wire.Hello.decode(applicant.hello)
        } catch {
            decide(refusal(CallError(error)))
            return
        }
        guard hello.protocolVersion >= 1 else {
            decide(refusal(CallError(.protocolError, "HELLO names no protocol version")))
            return
        }
        guard hello.instanceID.isEmpty || hello.instanceID.count == 16 else {
            decide(refusal(CallError(.protocolError, "an instance_id has 16 bytes")))
            return
        }
        let identity: PeerIdentity
        do throws(IdentityError) {
            identity = try PeerIdentity.parse(uriSANs: applicant.certificate.uriNames)
        } catch {
            logger.notice(
                "refused a certificate",
                metadata: ["serial": "\(applicant.certificate.serial)", "reason": "\(error)"]
            )
            decide(refusal(.authenticationFailure))
            return
        }
        if let account = identity.account {
            guard count(applicant.connection, of: account) else {
                let text = "the account has \(connectionsPerAccount) connections, and may have no more"
                decide(refusal(CallError(ServiceError(.throttled, text, retryAfter: .seconds(1)))))
                return
            }
        }
        let admission = Admission.accept(
            context: Peer(identity: identity),
            hello: parts.facts.hello().encode(),
            handler: Router(parts, identity: identity, connection: applicant.connection),
            party: identity.account?.hashValue
        )
        parts.counters.opened()
        applicant.connection.onClose { [counters = parts.counters] _ in counters.closed() }
        follow(applicant.connection, Instance(identity: identity, id: hello.instanceID)) { decide(admission) }
    }

    /// Counts a connection until it is closed; false where the account has too many.
    private func count(_ connection: RPCConnection, of account: AccountID) -> Bool {
        let isCounted = connections.withLock { connections in
            guard connections[account] < connectionsPerAccount else { return false }
            connections.add(account)
            return true
        }
        guard isCounted else { return false }
        connection.onClose { [weak self] _ in
            self?.connections.withLock { $0.remove(account) }
        }
        return true
    }

    /// Registers the connection of an instance; `body` runs when nothing can come of the instance's older ones any more.
    private func follow(_ connection: RPCConnection, _ instance: Instance, then body: @escaping @Sendable () -> Void) {
        guard !instance.id.isEmpty else { return body() }
        let older = instances.withLock { instances in
            defer { instances[instance, default: []].append(connection) }
            return instances[instance] ?? []
        }
        connection.onClose { [weak self] _ in
            connection.retire { [weak self] in self?.forget(connection, instance) }
        }
        let left = Mutex(older.count)
        if older.isEmpty { return body() }
        for one in older {
            one.retire {
                let isLast = left.withLock { left in
                    left -= 1
                    return left == 0
                }
                if isLast { body() }
            }
        }
    }

    private func forget(_ connection: RPCConnection, _ instance: Instance) {
        instances.withLock { instances in
            instances[instance]?.removeAll { $0 === connection }
            if instances[instance]?.isEmpty == true { instances[instance] = nil }
        }
    }

    private func refusal(_ error: CallError) -> Admission {
        .refuse(status: error.status.rawValue, detail: error.detail.encode())
    }
}
