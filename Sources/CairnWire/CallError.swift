/// The answer to a call that failed, as its caller gets it and as a server gives it.
public struct CallError: Error, Sendable, Hashable, CustomStringConvertible {
    public let status: Status
    /// Why, for programs. ``Wire/Reason/unspecified`` where the peer gave none.
    public let reason: Wire.Reason
    /// Why, for people.
    public let text: String
    /// The block, range, token or item at fault: its place in the request's list.
    public let blockIndex: Int?
    /// Whether the same call can succeed later, unchanged.
    public let isRetryable: Bool
    /// How long to wait before that; nil: as long as the caller likes. Whole milliseconds.
    public let retryAfter: Duration?

    /// A failure as a server answers it: the reason decides on the status, and, unless `retryable` does, on whether to
    /// retry.
    /// - Parameter retryAfter: at most 49 days; more is cut.
    public init(
        _ reason: Wire.Reason,
        _ text: String = "",
        blockIndex: Int? = nil,
        retryable: Bool? = nil,
        retryAfter: Duration? = nil
    ) {
        self.init(
            status: reason.status,
            reason: reason,
            text: text,
            blockIndex: blockIndex,
            retryable: retryable ?? reason.isRetryable,
            retryAfter: retryAfter
        )
    }

    /// A failure, all of it said.
    public init(
        status: Status,
        reason: Wire.Reason,
        text: String,
        blockIndex: Int? = nil,
        retryable: Bool,
        retryAfter: Duration? = nil
    ) {
        self.status = status
        self.reason = reason
        self.text = text
        self.blockIndex = blockIndex
        isRetryable = retryable
        self.retryAfter = retryAfter
    }

    /// What a peer answered: `status` and the bytes of its `ErrorDetail`. A number that is no status, or that is 0, reads
    /// as ``Status/unknown``; a detail that is none is left out, for the call has failed either way.
    public init(status: UInt32, detail: [UInt8]) {
        let known = Status(rawValue: status).flatMap { $0 == .ok ? nil : $0 } ?? .unknown
        let detail =
            (try? Wire.ErrorDetail.decode(detail)) ?? Wire.ErrorDetail(text: "the peer gave no readable detail")
        self.init(
            status: known,
            reason: detail.reason,
            text: detail.text,
            blockIndex: detail.blockIndex.map { Int($0.value) },
            retryable: detail.retryable,
            retryAfter: detail.retryAfterMs == 0 ? nil : .milliseconds(Int64(detail.retryAfterMs))
        )
    }

    /// The message of the RESPONSE that carries this error.
    public var detail: Wire.ErrorDetail {
        Wire.ErrorDetail(
            reason: reason,
            text: text,
            blockIndex: blockIndex.map { Wire.BlockIndex(value: UInt32(clamping: $0)) },
            retryable: isRetryable,
            retryAfterMs: retryAfter.map(CallError.milliseconds) ?? 0
        )
    }

    public var description: String {
        var words = reason == .unspecified ? "\(status)" : "\(reason)"
        if let blockIndex { words += " (block \(blockIndex))" }
        return text.isEmpty ? words : "\(words): \(text)"
    }

    /// Rounded up, so that nobody comes back too early.
    private static func milliseconds(_ duration: Duration) -> UInt32 {
        guard duration > .zero else { return 0 }
        let (seconds, attoseconds) = duration.components
        guard seconds < Int64(UInt32.max) / 1000 else { return .max }
        return UInt32(seconds * 1000 + (attoseconds + 999_999_999_999_999) / 1_000_000_000_000_000)
    }
}
