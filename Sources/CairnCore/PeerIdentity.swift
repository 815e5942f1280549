/// Who a caller is: what the one URI name in its certificate says (SPEC C1).
public enum PeerIdentity: Hashable, Sendable {
    /// An account's own client: `cairn://account/<account-id>`.
    case account(AccountID)
    /// One of the operator's compute hosts, acting for an account: `cairn://account/<account-id>/host`.
    case host(AccountID)
    /// The operator: `cairn://admin`.
    case admin

    /// Reads the identity out of all URI subject alternative names of a certificate whose chain was found good.
    ///
    /// The comparison is byte by byte: no normalisation, percent-encoding, user information, port, trailing slash,
    /// query or fragment. Two spellings of one identity would be two ways around a check.
    public static func parse(uriSANs: [String]) throws(IdentityError) -> PeerIdentity {
        guard let uri = uriSANs.first else { throw .missing }
        guard uriSANs.count == 1 else { throw .several(uriSANs.count) }
        guard let identity = PeerIdentity(uri: uri) else { throw .malformed }
        return identity
    }

    /// Nil unless the text is exactly one of the three forms.
    public init?(uri: String) {
        // Over the bytes: String's own comparison holds canonically equivalent texts to be equal.
        let bytes = Array(uri.utf8)
        if bytes == Array(Self.adminURI.utf8) {
            self = .admin
            return
        }
        let prefix = Array(Self.accountPrefix.utf8)
        guard bytes.starts(with: prefix) else { return nil }
        let parts = bytes.dropFirst(prefix.count).split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false)
        guard let name = parts.first, let account = AccountID(String(decoding: name, as: UTF8.self)) else { return nil }
        switch parts.count {
        case 1: self = .account(account)
        case 2 where Array(parts[1]) == Array("host".utf8): self = .host(account)
        default: return nil
        }
    }

    /// The URI that a certificate carries for this identity: the only text that parses to it.
    public var uri: String {
        switch self {
        case .account(let account): Self.accountPrefix + account.name
        case .host(let account): Self.accountPrefix + account.name + "/host"
        case .admin: Self.adminURI
        }
    }

    /// The account on whose behalf calls are made; nil for the operator.
    public var account: AccountID? {
        switch self {
        case .account(let account), .host(let account): account
        case .admin: nil
        }
    }

    private static let adminURI = "cairn://admin"
    private static let accountPrefix = "cairn://account/"
}

/// Why a certificate names nobody. The peer is told only AUTHENTICATION_FAILURE (SPEC C1); this is for the log.
public enum IdentityError: Error, Hashable, Sendable, CustomStringConvertible {
    /// No URI name at all.
    case missing
    /// More than one URI name: how many.
    case several(Int)
    /// One URI name, in none of the three forms.
    case malformed

    public var description: String {
        switch self {
        case .missing: "the certificate has no URI name"
        case .several(let count): "the certificate has \(count) URI names instead of one"
        case .malformed: "the certificate's URI name is no cairn:// identity"
        }
    }
}
