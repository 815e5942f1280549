/// How a call ended: gRPC's 17 codes, with gRPC's numbers and meanings. The RESPONSE header carries the number.
public enum Status: UInt32, Error, Sendable, Hashable, CaseIterable, CustomStringConvertible {
    case ok = 0
    case cancelled = 1
    case unknown = 2
    case invalidArgument = 3
    case deadlineExceeded = 4
    case notFound = 5
    case alreadyExists = 6
    case permissionDenied = 7
    case resourceExhausted = 8
    case failedPrecondition = 9
    case aborted = 10
    case outOfRange = 11
    case unimplemented = 12
    case `internal` = 13
    case unavailable = 14
    case dataLoss = 15
    case unauthenticated = 16

    /// gRPC's name: `NOT_FOUND`.
    public var description: String {
        switch self {
        case .ok: "OK"
        case .cancelled: "CANCELLED"
        case .unknown: "UNKNOWN"
        case .invalidArgument: "INVALID_ARGUMENT"
        case .deadlineExceeded: "DEADLINE_EXCEEDED"
        case .notFound: "NOT_FOUND"
        case .alreadyExists: "ALREADY_EXISTS"
        case .permissionDenied: "PERMISSION_DENIED"
        case .resourceExhausted: "RESOURCE_EXHAUSTED"
        case .failedPrecondition: "FAILED_PRECONDITION"
        case .aborted: "ABORTED"
        case .outOfRange: "OUT_OF_RANGE"
        case .unimplemented: "UNIMPLEMENTED"
        case .internal: "INTERNAL"
        case .unavailable: "UNAVAILABLE"
        case .dataLoss: "DATA_LOSS"
        case .unauthenticated: "UNAUTHENTICATED"
        }
    }
}

extension Wire.Reason {
    /// The status that a call which fails for this reason is answered with: the contract fixes one for each
    /// (PROTOCOL.md, "Errors"). ``Status/unknown`` for a reason that this version does not know.
    public var status: Status {
        switch self {
        case .authenticationFailure: .unauthenticated
        case .invalidVolumeID, .invalidSnapshotID, .invalidChunkToken: .notFound
        case .invalidVolumeSize, .invalidArgument, .invalidProgress, .checksumError, .idempotencyMismatch,
            .protocolError:
            .invalidArgument
        case .invalidDataVersion, .snapshotAlreadyComplete, .wrongVolumeKind, .failedPrecondition, .staleAttachment,
            .needsRebase:
            .failedPrecondition
        case .quotaExceeded, .throttled, .storeFull: .resourceExhausted
        case .dataLoss: .dataLoss
        case .permissionDenied: .permissionDenied
        case .unknownMethod: .unimplemented
        case .deadlineExceeded: .deadlineExceeded
        case .cancelled: .cancelled
        case .unavailable, .notReady: .unavailable
        case .internal: .internal
        default: .unknown
        }
    }

    /// Whether a call that fails for this reason can succeed later as it is, unless its answer says otherwise.
    public var isRetryable: Bool {
        switch self {
        case .checksumError, .throttled, .deadlineExceeded, .cancelled, .unavailable, .storeFull, .notReady: true
        default: false
        }
    }
}
