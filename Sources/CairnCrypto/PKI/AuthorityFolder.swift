internal import CairnCore

#if canImport(Glibc)
    internal import Glibc
#endif

/// The files of a certificate authority, and how they are read and written:
///
///     DIR/ca.crt      the authority's certificate; also what processes lock
///     DIR/ca.key      its private key, mode 0600
///     DIR/crl.pem     its revocation list, replaced whole
///     DIR/index.tsv   what it issued, replaced whole (``IssuedIndex``)
///     DIR/NAME.crt    a certificate that it issued
///     DIR/NAME.key    and its private key, mode 0600
struct AuthorityFolder: Sendable {
    let path: String

    var certificate: String { path + "/ca.crt" }
    var key: String { path + "/ca.key" }
    var revocationList: String { path + "/crl.pem" }
    var index: String { path + "/index.tsv" }
    func certificate(of name: CredentialName) -> String { "\(path)/\(name).crt" }
    func key(of name: CredentialName) -> String { "\(path)/\(name).key" }

    /// The most that is read of any file: an index of some 50,000 certificates.
    static let readLimit = 16 << 20
    /// How long to wait for another process: each holds the lock for milliseconds.
    static let lockLimitSeconds: Int64 = 10

    /// Makes the folder, open to its owner alone, unless it is there. Its parent must exist.
    func createIfMissing() throws(PKIError) {
        if mkdir(path, 0o700) == 0 || errno == EEXIST { return }
        throw .system(errno, "create the folder", path)
    }

    /// The whole of a file of at most ``readLimit`` bytes.
    static func read(_ path: String) throws(PKIError) -> [UInt8] {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw .system(errno, "open", path) }
        defer { close(descriptor) }
        var content: [UInt8] = []
        var part = [UInt8](repeating: 0, count: 64 << 10)
        while true {
            let count = uninterrupted { Glibc.read(descriptor, &part, part.count) }
            guard count >= 0 else { throw .system(errno, "read", path) }
            if count == 0 { return content }
            content.append(contentsOf: part[..<count])
            guard content.count <= readLimit else {
                throw PKIError(.badData, "\(path) is larger than \(readLimit) bytes")
            }
        }
    }

    /// Refuses a private key that other users may read: whoever read it once keeps it.
    static func requirePrivate(_ path: String) throws(PKIError) {
        var facts = stat()
        guard stat(path, &facts) == 0 else { throw .system(errno, "look at", path) }
        guard facts.st_mode & 0o077 == 0 else {
            throw PKIError(.permission, "the private key \(path) is open to other users; it needs chmod 600")
        }
    }

    /// Writes a new file and brings it to the disk; never over one that exists. Leaves nothing behind when it fails.
    func create(_ file: String, mode: mode_t, _ content: UnsafeRawBufferPointer) throws(PKIError) {
        try Self.write(content, to: file, flags: O_EXCL, mode: mode)
        do throws(PKIError) {
            try Self.synchronizeFolder(path)
        } catch {
            unlink(file)
            throw error
        }
    }

    /// Puts a whole new file in the place of an old one: after a crash there is the one or the other.
    func replace(_ file: String, _ content: UnsafeRawBufferPointer) throws(PKIError) {
        let fresh = file + ".new"
        // Whoever holds the lock may overwrite what a crash left under this name.
        try Self.write(content, to: fresh, flags: O_TRUNC, mode: 0o644)
        guard rename(fresh, file) == 0 else {
            let number = errno
            unlink(fresh)
            throw .system(number, "replace", file)
        }
        try Self.synchronizeFolder(path)
    }

    /// The same, of text.
    func create(_ file: String, mode: mode_t, text: String) throws(PKIError) {
        try Array(text.utf8).withBytes { (bytes) throws(PKIError) in try create(file, mode: mode, bytes) }
    }

    /// The same, of text.
    func replace(_ file: String, text: String) throws(PKIError) {
        try Array(text.utf8).withBytes { (bytes) throws(PKIError) in try replace(file, bytes) }
    }

    /// Says early, before anything is signed for it, that a file is in the way.
    func requireAbsent(_ file: String) throws(PKIError) {
        var facts = stat()
        if lstat(file, &facts) == 0 { throw .system(EEXIST, "create", file) }
        guard errno == ENOENT else { throw .system(errno, "look at", file) }
    }

    /// Takes back a file that ``create`` made.
    func remove(_ file: String) { unlink(file) }

    private static func write(
        _ content: UnsafeRawBufferPointer,
        to file: String,
        flags: Int32,
        mode: mode_t
    ) throws(PKIError) {
        let descriptor = open(file, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | flags, mode)
        guard descriptor >= 0 else { throw .system(errno, "create", file) }
        defer { close(descriptor) }
        var failure: Int32 = 0
        var rest = content
        while failure == 0 && !rest.isEmpty {
            let count = uninterrupted { Glibc.write(descriptor, rest.baseAddress, rest.count) }
            if count > 0 {
                rest = UnsafeRawBufferPointer(rebasing: rest[count...])
            } else {
                failure = count < 0 ? errno : EIO
            }
        }
        if failure == 0 && fsync(descriptor) != 0 { failure = errno }
        guard failure != 0 else { return }
        unlink(file)
        throw .system(failure, "write", file)
    }

    private static func synchronizeFolder(_ path: String) throws(PKIError) {
        let descriptor = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { throw .system(errno, "open the folder", path) }
        defer { close(descriptor) }
        guard fsync(descriptor) == 0 else { throw .system(errno, "synchronize the folder", path) }
    }
}

/// The right to read and change an authority's index, among processes and threads; given back when this value goes.
struct AuthorityLock: ~Copyable {
    private let descriptor: Int32

    init(_ folder: AuthorityFolder) throws(PKIError) {
        // The certificate is never replaced, so all lock the same file.
        let descriptor = open(folder.certificate, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw .system(errno, "open", folder.certificate) }
        let limit = Validity.now + AuthorityFolder.lockLimitSeconds
        while flock(descriptor, LOCK_EX | LOCK_NB) != 0 {
            let number = errno
            guard number == EWOULDBLOCK || number == EINTR, Validity.now <= limit else {
                close(descriptor)
                if number != EWOULDBLOCK { throw .system(number, "lock", folder.certificate) }
                throw PKIError(.busy, "another process is still changing \(folder.path)")
            }
            usleep(10_000)
        }
        self.descriptor = descriptor
    }

    deinit { close(descriptor) }
}

/// What a certificate's files are called, without `.crt` and `.key`, and its common name: 1–64 letters, digits, `.`, `_`
/// and `-`, the first a letter or digit. `ca` is the authority's own.
public struct CredentialName: Hashable, Sendable, CustomStringConvertible {
    public let description: String

    public init(_ text: String) throws(PKIError) {
        let bytes = Array(text.utf8)
        let good =
            (1...64).contains(bytes.count) && AlternativeName.isAlphanumeric(bytes[0])
            && bytes.allSatisfy { AlternativeName.isAlphanumeric($0) || [0x2d, 0x2e, 0x5f].contains($0) }
        guard good, text.lowercased() != "ca" else {
            throw PKIError(
                .invalidArgument,
                "'\(text)' is no good name: 1 to 64 letters, digits, '.', '_' and '-', the first a letter or digit, not 'ca'"
            )
        }
        description = text
    }
}

extension [UInt8] {
    /// `withUnsafeBytes` with a typed error, which the standard library's does not carry.
    fileprivate func withBytes(_ body: (UnsafeRawBufferPointer) throws(PKIError) -> Void) throws(PKIError) {
        let result = withUnsafeBytes { bytes -> Result<Void, PKIError> in
            do throws(PKIError) { return .success(try body(bytes)) } catch { return .failure(error) }
        }
        try result.get()
    }
}
