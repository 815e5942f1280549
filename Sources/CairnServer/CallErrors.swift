import CairnCore
import CairnService
import CairnWire

/// The one place where the service's errors become statuses and details of the wire (STYLE: errors).
extension CallError {
    init(_ error: ServiceError) {
        let (status, reason, retryable): (Status, Wire.Reason, Bool) =
            switch error.code {
            case .invalidVolumeID: (.notFound, .invalidVolumeID, false)
            case .invalidSnapshotID: (.notFound, .invalidSnapshotID, false)
            case .invalidVolumeSize: (.invalidArgument, .invalidVolumeSize, false)
            case .invalidArgument: (.invalidArgument, .invalidArgument, false)
            case .invalidDataVersion: (.failedPrecondition, .invalidDataVersion, false)
            case .invalidChunkToken: (.notFound, .invalidChunkToken, false)
            case .checksumError: (.invalidArgument, .checksumError, true)
            case .snapshotAlreadyComplete: (.failedPrecondition, .snapshotAlreadyComplete, false)
            case .wrongVolumeKind: (.failedPrecondition, .wrongVolumeKind, false)
            case .idempotencyMismatch: (.invalidArgument, .idempotencyMismatch, false)
            case .failedPrecondition: (.failedPrecondition, .failedPrecondition, false)
            case .permissionDenied: (.permissionDenied, .permissionDenied, false)
            case .dataLoss: (.dataLoss, .dataLoss, false)
            case .unimplemented: (.unimplemented, .unknownMethod, false)
            case .deadlineExceeded: (.deadlineExceeded, .deadlineExceeded, true)
            case .cancelled: (.cancelled, .cancelled, true)
            case .storeFull: (.resourceExhausted, .storeFull, true)
            case .unavailable: (.unavailable, .unavailable, true)
            case .internalFailure: (.internal, .internal, false)
            }
        self.init(status: status, reason: reason, text: error.text, blockIndex: error.blockIndex, retryable: retryable)
    }

    /// A message that does not decode.
    init(_ error: WireError) {
        self.init(status: .invalidArgument, reason: .invalidArgument, text: "\(error)", retryable: false)
    }

    /// SPEC C1: says nothing about the store.
    static let authenticationFailure = CallError(
        status: .unauthenticated, reason: .authenticationFailure,
        text: "the certificate must name exactly one account, as cairn://account/<id>", retryable: false)
}
