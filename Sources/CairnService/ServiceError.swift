/// Why the service refused or failed a call. `CairnServer` maps it to a status and a typed detail, in one file.
public struct ServiceError: Error, Sendable, Equatable, CustomStringConvertible {
    /// What programs switch on; SPEC's names.
    public enum Code: Sendable, Equatable {
        case invalidVolumeID
        case invalidSnapshotID
        case invalidVolumeSize
        case invalidArgument
        case invalidDataVersion
        case invalidChunkToken
        case invalidProgress
        case checksumError
        case snapshotAlreadyComplete
        case wrongVolumeKind
        case idempotencyMismatch
        case failedPrecondition
        case needsRebase
        case staleAttachment
        case quotaExceeded
        case throttled
        case permissionDenied
        case dataLoss
        case unimplemented
        case deadlineExceeded
        case cancelled
        case storeFull
        case unavailable
        case internalFailure
        /// No answer: the look-up is made again where it may wait for the disk (``Service/lookUp(in:_:_:_:)``).
        case notInMemory
    }

    public let code: Code
    /// For people; names the offending thing, never another account's data (SPEC C3).
    public let text: String
    /// The block, range or token at fault: its place in the request's list.
    public let blockIndex: Int?
    /// How long the caller should wait before it tries again; nil: as long as it likes.
    public let retryAfter: Duration?

    public init(_ code: Code, _ text: String, blockIndex: Int? = nil, retryAfter: Duration? = nil) {
        self.code = code
        self.text = text
        self.blockIndex = blockIndex
        self.retryAfter = retryAfter
    }

    /// The same error, of the block at `index`.
    func at(_ index: Int) -> ServiceError { ServiceError(code, text, blockIndex: index, retryAfter: retryAfter) }

    public var description: String {
        blockIndex.map { "\(code) (block \($0)): \(text)" } ?? "\(code): \(text)"
    }

    /// SPEC C2: the one answer for a volume that is missing and one that the caller may not see.
    static let noSuchVolume = ServiceError(.invalidVolumeID, "there is no such volume")
    /// SPEC C2: the one answer for a snapshot that is missing and one that the caller may not see.
    static let noSuchSnapshot = ServiceError(.invalidSnapshotID, "there is no such snapshot")
}
