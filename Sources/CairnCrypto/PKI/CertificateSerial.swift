internal import COpenSSL
internal import CairnCore

/// A certificate's serial number: with its issuer, what a revocation list names it by.
public struct CertificateSerial: Hashable, Sendable, CustomStringConvertible {
    /// Big-endian, without leading zero bytes.
    public let bytes: [UInt8]

    public init(bytes: some Sequence<UInt8>) {
        self.bytes = Array(bytes.drop { $0 == 0 })
    }

    /// Reads hexadecimal digits, with or without colons between the bytes, as `openssl x509` prints them; at most
    /// 20 bytes (RFC 5280, 4.1.2.2).
    public init?(text: String) {
        let digits = text.filter { $0 != ":" }
        guard !digits.isEmpty, digits.utf8.count <= 40 else { return nil }
        guard let bytes = Hex.decode(digits.utf8.count.isMultiple(of: 2) ? digits : "0" + digits) else { return nil }
        self.init(bytes: bytes)
    }

    /// Lower-case hexadecimal digits, two for each byte.
    public var description: String { Hex.encode(bytes) }

    /// A new one from the system's secure random numbers: 16 bytes, of which 126 bits are random. The first two bits are
    /// 01, so that it is positive, and as long in DER and in every tool's printout as it is here.
    static func random() throws(PKIError) -> CertificateSerial {
        var bytes = [UInt8](repeating: 0, count: 16)
        guard RAND_bytes(&bytes, 16) == 1 else { throw .openSSL("make a random serial number") }
        bytes[0] = bytes[0] & 0x3f | 0x40
        return CertificateSerial(bytes: bytes)
    }

    /// Of an ASN.1 INTEGER that OpenSSL owns.
    init(_ integer: UnsafePointer<ASN1_INTEGER>) {
        let count = Int(ASN1_STRING_length(integer))
        self.init(bytes: UnsafeBufferPointer(start: ASN1_STRING_get0_data(integer), count: count))
    }

    /// Calls `body` with the serial as an ASN.1 INTEGER.
    func withInteger<R>(_ body: (UnsafeMutablePointer<ASN1_INTEGER>) throws(PKIError) -> R) throws(PKIError) -> R {
        let number = BN_bin2bn(bytes, Int32(bytes.count), nil)
        defer { BN_free(number) }
        guard let integer = BN_to_ASN1_INTEGER(number, nil) else { throw .openSSL("encode a serial number") }
        defer { ASN1_INTEGER_free(integer) }
        return try body(integer)
    }
}
