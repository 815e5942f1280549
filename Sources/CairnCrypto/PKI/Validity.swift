internal import COpenSSL

#if canImport(Glibc)
    internal import Glibc
#endif

/// From when to when a certificate is good, both ends included.
public struct Validity: Hashable, Sendable {
    /// Seconds since 1970-01-01 UTC.
    public let notBefore: Int64
    /// Seconds since 1970-01-01 UTC.
    public let notAfter: Int64

    /// Any two points in time: tests need certificates that have expired, or are not valid yet.
    public init(notBefore: Int64, notAfter: Int64) {
        self.notBefore = notBefore
        self.notAfter = notAfter
    }

    /// From five minutes ago, so that a peer whose clock is a little behind accepts it, until `days` × 24 h from now.
    public static func days(_ days: Int) -> Validity {
        let now = Validity.now
        return Validity(notBefore: now - 300, notAfter: now + Int64(days) * 86_400)
    }

    /// The same, but over at `limit` at the latest.
    public func ending(by limit: Int64) -> Validity {
        Validity(notBefore: notBefore, notAfter: min(notAfter, limit))
    }

    /// The present: seconds since 1970-01-01 UTC.
    public static var now: Int64 { Int64(time(nil)) }
}

/// ASN.1's times.
enum CertificateTime {
    /// Calls `body` with a point in time as X.509 wants it: UTCTime before 2050, GeneralizedTime from then on.
    static func with<R>(
        _ seconds: Int64,
        _ body: (UnsafeMutablePointer<ASN1_TIME>) throws(PKIError) -> R
    ) throws(PKIError) -> R {
        guard let time = ASN1_TIME_set(nil, time_t(seconds)) else {
            throw .openSSL("encode the time \(seconds)", code: .invalidArgument)
        }
        defer { ASN1_TIME_free(time) }
        return try body(time)
    }

    /// Nil where the time does not read.
    static func seconds(_ time: UnsafePointer<ASN1_TIME>?) -> Int64? {
        var parts = tm()
        guard let time, ASN1_TIME_to_tm(time, &parts) == 1 else { return nil }
        return Int64(timegm(&parts))
    }
}
