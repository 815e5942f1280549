import ArgumentParser
import CairnClient
import CairnWire

/// How a failure ends the program: after sysexits.h where it has a code. They are an interface: none changes its meaning.
enum ExitCodes {
    static let text = """
        Exit codes:
          0    done
          1    another failure: the server refused the request
          44   there is no such volume or snapshot
          64   wrong usage, or a request that cannot be made of what is there: see the text
          65   damaged data: a checksum, a token or a seal does not match
          66   the source cannot be read, or changed while it was read
          69   the server cannot be reached, or cannot serve now
          73   the target exists, or cannot be made or opened
          74   the target cannot be written
          75   the server asks to try again later
          76   the server broke the protocol
          77   not permitted, or a certificate was not accepted
          78   the configuration is wrong
          130  interrupted
        """

    static let damaged = ExitCode(65)
    static let interrupted = ExitCode(130)
    static let configuration = ExitCode(78)

    static func code(of error: ClientError) -> ExitCode {
        switch error.code {
        case .answered, .refused: ExitCode(error.answer.map { code(of: $0.reason) } ?? 69)
        case .unreachable, .connectionLost, .timedOut: ExitCode(69)
        case .insecure: ExitCode(77)
        case .cancelled: interrupted
        case .protocolViolation: ExitCode(76)
        case .damaged: damaged
        case .invalidRequest: ExitCode(64)
        case .configuration: configuration
        case .source: ExitCode(66)
        case .target: ExitCode(ExitCodes.writeErrors.contains(error.errno) ? 74 : 73)
        }
    }

    /// EIO, ENOSPC, EPIPE, EFBIG and EDQUOT: the target was there, and then could not be written. ENOSPC on a device that
    /// is too small is the same to its user.
    private static let writeErrors: Set<Int32> = [5, 27, 28, 32, 122]

    private static func code(of reason: Wire.Reason) -> Int32 {
        switch reason {
        case .invalidVolumeID, .invalidSnapshotID: 44
        case .checksumError, .dataLoss: 65
        case .unavailable, .internal, .deadlineExceeded, .cancelled: 69
        case .throttled, .notReady: 75
        case .protocolError, .unknownMethod: 76
        case .authenticationFailure, .permissionDenied: 77
        default: 1
        }
    }

    /// What happened, for programs. Who cancels at a terminal interrupts.
    static func reason(of error: ClientError) -> String {
        error.code == .cancelled && error.answer == nil ? "INTERRUPTED" : error.reason
    }
}
