internal import Synchronization

/// How far a transfer is: sums in bytes, in terms of the volume or snapshot, not of the wire, unless they say so.
public struct TransferProgress: Sendable, Hashable {
    /// All that there is to go through; nil while that is unknown (a stream).
    public var total: UInt64?
    /// Gone through.
    public var done: UInt64 = 0
    /// Holes and zeros, which need no bytes on the wire.
    public var zero: UInt64 = 0
    /// In place already.
    public var inPlace: UInt64 = 0
    /// Not in place, but known to the server: sent as tokens. Only of imports.
    public var deduplicated: UInt64 = 0
    /// Transferred with their bytes.
    public var transferred: UInt64 = 0
    /// What the transferred chunks' bytes came to after compression.
    public var payload: UInt64 = 0
    /// Payload, messages and frame headers, in the data's direction; TLS adds about half a percent.
    public var wire: UInt64 = 0
    /// Calls that were answered.
    public var calls: UInt64 = 0

    public init() {}
}

/// The sums of a transfer that runs: updated once for each step of a piece, read by whoever shows them.
final class TransferCounter: Sendable {
    private let progress = Mutex(TransferProgress())

    var value: TransferProgress { progress.withLock { $0 } }
    func update(_ change: (inout TransferProgress) -> Void) { progress.withLock { change(&$0) } }
}
