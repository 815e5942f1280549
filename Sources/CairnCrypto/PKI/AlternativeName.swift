internal import COpenSSL

#if canImport(Glibc)
    internal import Glibc
#endif

/// A subject alternative name: what a certificate calls its holder.
public enum AlternativeName: Hashable, Sendable, CustomStringConvertible {
    /// A host name, as clients compare it to the one that they connect to.
    case dns(String)
    /// An IPv4 or IPv6 address.
    case address(Address)
    /// A URI: a client's identity (SPEC C1).
    case uri(String)

    /// An address of 4 or 16 bytes in network order.
    public struct Address: Hashable, Sendable, CustomStringConvertible {
        public let bytes: [UInt8]

        /// Nil unless there are 4 or 16 bytes.
        public init?(bytes: [UInt8]) {
            guard bytes.count == 4 || bytes.count == 16 else { return nil }
            self.bytes = bytes
        }

        /// Reads `192.0.2.1` or `2001:db8::1`.
        public init?(text: String) {
            for (family, count) in [(AF_INET, 4), (AF_INET6, 16)] {
                var bytes = [UInt8](repeating: 0, count: count)
                guard inet_pton(family, text, &bytes) == 1 else { continue }
                self.bytes = bytes
                return
            }
            return nil
        }

        public var description: String {
            var text = [CChar](repeating: 0, count: Int(INET6_ADDRSTRLEN))
            let family = bytes.count == 4 ? AF_INET : AF_INET6
            guard inet_ntop(family, bytes, &text, socklen_t(text.count)) != nil else { return "?" }
            return String(decoding: text.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
        }
    }

    /// A host name of letters, digits, `-` and `.`, at most 253 bytes, its first label possibly `*`; nil for others.
    public init?(hostName: String) {
        let labels = hostName.split(separator: ".", omittingEmptySubsequences: false)
        guard hostName.utf8.count <= 253 else { return nil }
        for (position, label) in labels.enumerated() where !(position == 0 && label == "*" && labels.count > 2) {
            let good = label.utf8.allSatisfy { $0 == UInt8(ascii: "-") || Self.isAlphanumeric($0) }
            guard good, (1...63).contains(label.utf8.count), label.first != "-", label.last != "-" else { return nil }
        }
        self = .dns(hostName)
    }

    /// As OpenSSL prints it: `DNS:name`, `IP:address`, `URI:text`.
    public var description: String {
        switch self {
        case .dns(let name): "DNS:" + name
        case .address(let address): "IP:" + address.description
        case .uri(let uri): "URI:" + uri
        }
    }

    /// Reads a ``description``.
    init?(description: String) {
        if description.hasPrefix("DNS:") {
            self = .dns(String(description.dropFirst(4)))
        } else if description.hasPrefix("URI:") {
            self = .uri(String(description.dropFirst(4)))
        } else if description.hasPrefix("IP:"), let address = Address(text: String(description.dropFirst(3))) {
            self = .address(address)
        } else {
            return nil
        }
    }

    static func isAlphanumeric(_ byte: UInt8) -> Bool {
        (0x30...0x39).contains(byte) || (0x41...0x5a).contains(byte) || (0x61...0x7a).contains(byte)
    }
}

extension AlternativeName {
    /// A new GENERAL_NAME that the caller owns.
    func generalName() throws(PKIError) -> UnsafeMutablePointer<GENERAL_NAME> {
        let kind: Int32
        let bytes: [UInt8]
        switch self {
        case .dns(let name): (kind, bytes) = (GEN_DNS, Array(name.utf8))
        case .address(let address): (kind, bytes) = (GEN_IPADD, address.bytes)
        case .uri(let uri): (kind, bytes) = (GEN_URI, Array(uri.utf8))
        }
        let string = ASN1_STRING_type_new(kind == GEN_IPADD ? V_ASN1_OCTET_STRING : V_ASN1_IA5STRING)
        guard let string, ASN1_STRING_set(string, bytes, Int32(bytes.count)) == 1, let name = GENERAL_NAME_new() else {
            ASN1_STRING_free(string)
            throw .openSSL("encode the name \(self)")
        }
        GENERAL_NAME_set0_value(name, kind, string)
        return name
    }

    /// Nil for kinds of names that Cairn has no use for (e-mail, directory names, …). Bytes that are no UTF-8 become
    /// U+FFFD, and a zero byte stays one: neither can be part of a name that is accepted.
    init?(_ name: UnsafeMutablePointer<GENERAL_NAME>) {
        var kind: Int32 = 0
        guard let value = GENERAL_NAME_get0_value(name, &kind) else { return nil }
        guard kind == GEN_DNS || kind == GEN_URI || kind == GEN_IPADD else { return nil }
        let string = value.assumingMemoryBound(to: ASN1_STRING.self)
        let bytes = Array(
            UnsafeBufferPointer(start: ASN1_STRING_get0_data(string), count: Int(ASN1_STRING_length(string)))
        )
        switch kind {
        case GEN_DNS: self = .dns(String(decoding: bytes, as: UTF8.self))
        case GEN_URI: self = .uri(String(decoding: bytes, as: UTF8.self))
        default:
            guard let address = Address(bytes: bytes) else { return nil }
            self = .address(address)
        }
    }
}
