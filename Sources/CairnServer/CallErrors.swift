import CairnService
import CairnWire

/// The one place where the service's errors become the wire's: a reason, which fixes the status, and a detail.
extension CallError {
    init(_ error: ServiceError) {
        let reason: Wire.Reason =
            switch error.code {
            case .invalidVolumeID: .invalidVolumeID
            case .invalidSnapshotID: .invalidSnapshotID
            case .invalidVolumeSize: .invalidVolumeSize
            case .invalidArgument: .invalidArgument
            case .invalidDataVersion: .invalidDataVersion
            case .invalidChunkToken: .invalidChunkToken
            case .invalidProgress: .invalidProgress
            case .checksumError: .checksumError
            case .snapshotAlreadyComplete: .snapshotAlreadyComplete
            case .wrongVolumeKind: .wrongVolumeKind
            case .idempotencyMismatch: .idempotencyMismatch
            case .failedPrecondition: .failedPrecondition
            case .needsRebase: .needsRebase
            case .staleAttachment: .staleAttachment
            case .quotaExceeded: .quotaExceeded
            case .throttled: .throttled
            case .permissionDenied: .permissionDenied
            case .dataLoss: .dataLoss
            case .unimplemented: .unknownMethod
            case .deadlineExceeded: .deadlineExceeded
            case .cancelled: .cancelled
            case .storeFull: .storeFull
            case .unavailable: .unavailable
            case .internalFailure, .notInMemory: .internal
            }
        self.init(reason, error.text, blockIndex: error.blockIndex, retryAfter: error.retryAfter)
    }

    /// A message that does not decode.
    init(_ error: WireError) { self.init(.invalidArgument, "\(error)") }

    /// SPEC C1: says nothing about the store.
    static let authenticationFailure = CallError(
        .authenticationFailure,
        "the certificate must name exactly one account, as cairn://account/<id>"
    )
}
