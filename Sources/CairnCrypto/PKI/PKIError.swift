internal import COpenSSL

#if canImport(Glibc)
    internal import Glibc
#endif

/// What went wrong with a certificate authority's folder.
public struct PKIError: Error, Sendable, CustomStringConvertible {
    /// What programs switch on.
    public enum Code: String, Sendable, CaseIterable {
        /// A file that would be made is there already; nothing is ever overwritten.
        case alreadyExists = "ALREADY_EXISTS"
        /// The folder holds no certificate authority, or a file to be read is missing.
        case noSuchFile = "NO_SUCH_FILE"
        /// No certificate of that name or serial was issued here.
        case unknownCertificate = "UNKNOWN_CERTIFICATE"
        /// Several good certificates have the name that was given.
        case ambiguousName = "AMBIGUOUS_NAME"
        /// A name, host name, address, lifetime or serial that cannot be.
        case invalidArgument = "INVALID_ARGUMENT"
        /// A certificate, key or index that does not read, or that do not belong together.
        case badData = "BAD_DATA"
        /// The operating system refuses, or a private key is open to other users.
        case permission = "PERMISSION"
        /// Another process has been holding the authority's lock for too long.
        case busy = "BUSY"
        /// Reading or writing failed.
        case io = "IO"
        /// OpenSSL refused what it should be able to do.
        case crypto = "CRYPTO"
    }

    public let code: Code
    /// For people: what was tried, on which file, and why it failed.
    public let text: String
    public var description: String { text }

    /// - Parameter text: for people; names the file and what to do about it.
    public init(_ code: Code, _ text: String) {
        self.code = code
        self.text = text
    }

    /// From `errno`, after a system call on `path` failed.
    static func system(_ number: Int32, _ action: String, _ path: String) -> PKIError {
        let code: Code =
            switch number {
            case EEXIST: .alreadyExists
            case ENOENT, ENOTDIR: .noSuchFile
            case EACCES, EPERM, EROFS: .permission
            default: .io
            }
        return PKIError(code, "cannot \(action) \(path): \(String(cString: strerror(number)))")
    }

    /// From OpenSSL's queue of errors, which is empty afterwards.
    static func openSSL(_ action: String, code: Code = .crypto) -> PKIError {
        // The oldest entry is the cause, the later ones tell who passed it on.
        let cause = ERR_get_error()
        ERR_clear_error()
        guard cause != 0, let reason = ERR_reason_error_string(cause) else { return PKIError(code, "cannot \(action)") }
        return PKIError(code, "cannot \(action): \(String(cString: reason))")
    }
}
