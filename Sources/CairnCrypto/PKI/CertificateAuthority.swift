public import CairnCore

/// A certificate authority in a folder: it says which servers and clients belong to an installation.
///
/// Keys are ECDSA on P-256 in files of mode 0600, serial numbers are random, nothing that exists is overwritten. Every
/// certificate is in the index before it is handed out, so that whatever was issued can be revoked. Several processes
/// and threads may use one folder at once. A call takes a millisecond or two of signing, and waits for the disk.
public final class CertificateAuthority: Sendable {
    private let folder: AuthorityFolder
    private let key: PrivateKey
    private let certificate: Certificate
    /// What the authority's own certificate says.
    public let facts: CertificateFacts

    /// The paths of a certificate and its private key.
    public struct Credentials: Hashable, Sendable {
        public let certificate: IssuedCertificate
        public let certificatePath: String
        public let keyPath: String
    }

    /// The authority's certificate: what peers trust.
    public var certificatePath: String { folder.certificate }
    /// The authority's revocation list: there from the beginning, at first empty.
    public var revocationListPath: String { folder.revocationList }

    /// Makes a new authority.
    /// - Parameters:
    ///   - path: a folder, made if it is missing; its parent must exist.
    ///   - commonName: at most 64 characters; without one `Cairn CA` and the beginning of its serial number.
    /// - Throws: ``PKIError`` `.alreadyExists` where the folder holds an authority, or a part of one.
    public static func create(
        in path: String,
        commonName: String? = nil,
        validity: Validity = .days(3650)
    ) throws(PKIError) -> CertificateAuthority {
        let folder = AuthorityFolder(path: path)
        try folder.createIfMissing()
        try requireOrder(validity)
        let serial = try CertificateSerial.random()
        let draft = CertificateDraft(
            commonName: commonName ?? "Cairn CA \(serial.description.prefix(8))",
            serial: serial,
            role: .authority,
            validity: validity,
            alternativeNames: []
        )
        let key = try PrivateKey.generate()
        let certificate = try draft.signed(by: key)
        let list = RevocationList(number: 1, issuedAt: Validity.now, nextUpdate: validity.notAfter, revoked: [])
        var index = IssuedIndex()
        index.revocationListNumber = 1

        // Whoever makes the key's file owns the folder; the certificate comes last, and says that all is there.
        var made: [String] = []
        do throws(PKIError) {
            try key.withPEM { (pem) throws(PKIError) in try folder.create(folder.key, mode: 0o600, pem) }
            made.append(folder.key)
            try folder.create(folder.index, mode: 0o644, text: index.text)
            made.append(folder.index)
            try list.signedPEM(by: key, of: certificate) { (pem) throws(PKIError) in
                try folder.create(folder.revocationList, mode: 0o644, pem)
            }
            made.append(folder.revocationList)
            try certificate.withPEM { (pem) throws(PKIError) in try folder.create(folder.certificate, mode: 0o644, pem)
            }
        } catch {
            for file in made { folder.remove(file) }
            throw error
        }
        return try CertificateAuthority(folder, key, certificate)
    }

    /// Opens an authority that ``create(in:commonName:validity:)`` made.
    /// - Throws: ``PKIError`` `.noSuchFile` where there is none, `.permission` where its key is open to other users,
    ///   `.badData` where a file is damaged, or the key is not the certificate's.
    public static func open(_ path: String) throws(PKIError) -> CertificateAuthority {
        let folder = AuthorityFolder(path: path)
        let pem = try AuthorityFolder.read(folder.certificate)
        let certificate = try Certificate.read(pem: pem, origin: folder.certificate)
        try AuthorityFolder.requirePrivate(folder.key)
        let key = try PrivateKey.read(pem: try AuthorityFolder.read(folder.key), origin: folder.key)
        guard certificate.matches(key) else {
            throw PKIError(.badData, "\(folder.key) is not the key of \(folder.certificate)")
        }
        return try CertificateAuthority(folder, key, certificate)
    }

    private init(
        _ folder: AuthorityFolder,
        _ key: consuming PrivateKey,
        _ certificate: consuming Certificate
    ) throws(PKIError) {
        facts = try certificate.facts(origin: folder.certificate)
        self.folder = folder
        self.key = key
        self.certificate = certificate
    }

    /// Issues a certificate for a server that is reached by the given names and addresses.
    public func issueServer(
        _ name: CredentialName,
        names: [AlternativeName],
        validity: Validity = .days(365)
    ) throws(PKIError) -> Credentials {
        try issue(name, role: .server, alternativeNames: names, validity: validity)
    }

    /// Issues a certificate for a caller: its only alternative name is the identity's URI (SPEC C1).
    public func issueClient(
        _ name: CredentialName,
        identity: PeerIdentity,
        validity: Validity = .days(365)
    ) throws(PKIError) -> Credentials {
        try issue(name, role: .client, alternativeNames: [.uri(identity.uri)], validity: validity)
    }

    /// Issues a certificate with any list of names, none included, and any lifetime: what is issued here need not be
    /// accepted by a server. Tests of authentication live on that; others use the calls above.
    /// - Throws: ``PKIError`` `.alreadyExists` where `NAME.crt` or `NAME.key` is there.
    public func issue(
        _ name: CredentialName,
        role: CertificateRole,
        alternativeNames: [AlternativeName],
        validity: Validity
    ) throws(PKIError) -> Credentials {
        guard role != .authority else { throw PKIError(.invalidArgument, "an authority issues no authorities") }
        try Self.requireOrder(validity)
        let issued = IssuedCertificate(
            serial: try .random(),
            name: name,
            role: role,
            validity: validity,
            alternativeNames: alternativeNames,
            revokedAt: nil
        )
        let draft = CertificateDraft(
            commonName: name.description,
            serial: issued.serial,
            role: role,
            validity: validity,
            alternativeNames: alternativeNames
        )
        let subjectKey = try PrivateKey.generate()
        let signed = try draft.signed(for: subjectKey, by: key, of: certificate)
        let credentials = Credentials(
            certificate: issued,
            certificatePath: folder.certificate(of: name),
            keyPath: folder.key(of: name)
        )

        let lock = try AuthorityLock(folder)
        defer { extendLifetime(lock) }
        try folder.requireAbsent(credentials.certificatePath)
        try folder.requireAbsent(credentials.keyPath)
        var index = try readIndex()
        // First the index: should the files fail, it names a certificate that nobody has, which is the better mistake.
        index.certificates.append(issued)
        try folder.replace(folder.index, text: index.text)
        try subjectKey.withPEM { (pem) throws(PKIError) in try folder.create(credentials.keyPath, mode: 0o600, pem) }
        do throws(PKIError) {
            try signed.withPEM { (pem) throws(PKIError) in
                try folder.create(credentials.certificatePath, mode: 0o644, pem)
            }
        } catch {
            folder.remove(credentials.keyPath)
            throw error
        }
        return credentials
    }

    /// Everything that was issued, oldest first.
    public func issuedCertificates() throws(PKIError) -> [IssuedCertificate] {
        try readIndex().certificates
    }

    /// Finds the certificate that a serial number or a name stands for. A name stands for its only certificate that is
    /// neither revoked nor expired; where there is none, for the newest of that name.
    /// - Throws: ``PKIError`` `.unknownCertificate`, or `.ambiguousName` where several are good.
    public func find(_ serialOrName: String) throws(PKIError) -> IssuedCertificate {
        let all = try readIndex().certificates
        // Serials first: a name of 32 hexadecimal digits would be a strange one.
        if let serial = CertificateSerial(text: serialOrName), let found = all.first(where: { $0.serial == serial }) {
            return found
        }
        let named = all.filter { $0.name.description == serialOrName }
        let good = named.filter { $0.status() == .valid || $0.status() == .pending }
        guard good.count <= 1 else {
            let serials = good.map(\.serial.description).joined(separator: ", ")
            throw PKIError(
                .ambiguousName,
                "'\(serialOrName)' stands for several good certificates; name one by serial: \(serials)"
            )
        }
        guard let found = good.first ?? named.last else {
            throw PKIError(.unknownCertificate, "\(folder.path) has issued no certificate '\(serialOrName)'")
        }
        return found
    }

    /// Revokes a certificate, and replaces the revocation list. One that was revoked before keeps its date; the list is
    /// made anew all the same, in case a crash came between the index and the list.
    /// - Throws: ``PKIError`` `.unknownCertificate` where this authority has not issued it.
    public func revoke(_ serial: CertificateSerial) throws(PKIError) -> IssuedCertificate {
        let lock = try AuthorityLock(folder)
        defer { extendLifetime(lock) }
        var index = try readIndex()
        guard let position = index.certificates.firstIndex(where: { $0.serial == serial }) else {
            throw PKIError(
                .unknownCertificate,
                "\(folder.path) has issued no certificate with the serial number \(serial)"
            )
        }
        let now = Validity.now
        if index.certificates[position].revokedAt == nil { index.certificates[position].revokedAt = now }
        index.revocationListNumber += 1
        try folder.replace(folder.index, text: index.text)
        let list = RevocationList(
            number: index.revocationListNumber,
            issuedAt: now,
            nextUpdate: facts.validity.notAfter,
            revoked: index.certificates.compactMap { issued in issued.revokedAt.map { (issued.serial, $0) } }
        )
        try list.signedPEM(by: key, of: certificate) { (pem) throws(PKIError) in
            try folder.replace(folder.revocationList, pem)
        }
        return index.certificates[position]
    }

    private func readIndex() throws(PKIError) -> IssuedIndex {
        try IssuedIndex(try AuthorityFolder.read(folder.index), path: folder.index)
    }

    private static func requireOrder(_ validity: Validity) throws(PKIError) {
        guard validity.notBefore <= validity.notAfter else {
            throw PKIError(.invalidArgument, "a certificate cannot end before it begins")
        }
    }
}
