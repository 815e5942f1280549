/// Whether the peer is still there, and sends no slower than it may. Times are uptime in nanoseconds, passed in.
struct Liveness {
    enum Verdict: Equatable {
        case fine
        /// Nothing came for long: send a PING with this number.
        case ping(UInt64)
        /// The PING brought nothing.
        case dead
        /// A frame has been on its way for too long.
        case slow
    }

    private let pingAfter: UInt64
    private let pongWithin: UInt64
    private let frameLimit: UInt64
    private let payloadRate: UInt64
    private var lastHeard: UInt64
    private var pingSent: UInt64?
    private var pings: UInt64 = 0
    /// The frame that is half here: which one, and since when.
    private var partial: (frame: UInt64, since: UInt64, payload: Int)?

    init(_ configuration: RPCConfiguration, now: UInt64) {
        pingAfter = configuration.pingAfter.nanoseconds
        pongWithin = configuration.pongWithin.nanoseconds
        frameLimit = configuration.frameLimit.nanoseconds
        payloadRate = UInt64(max(1, configuration.payloadRate))
        lastHeard = now
    }

    /// Bytes came in. `frames` is how many frames were completed so far; `partialPayload` is what the one that is half here
    /// announced, nil if there is none.
    mutating func heard(now: UInt64, frames: UInt64, partialPayload: Int?) {
        lastHeard = now
        pingSent = nil
        guard let payload = partialPayload else {
            partial = nil
            return
        }
        if let partial, partial.frame == frames {
            self.partial?.payload = payload
        } else {
            partial = (frames, now, payload)
        }
    }

    /// What is to be done at `now`.
    mutating func check(now: UInt64) -> Verdict {
        if let deadline = frameDeadline, now >= deadline { return .slow }
        if let pingSent { return now >= pingSent + pongWithin ? .dead : .fine }
        guard now >= lastHeard + pingAfter else { return .fine }
        pingSent = now
        pings += 1
        return .ping(pings)
    }

    /// When to check next.
    var nextCheck: UInt64 {
        let silence = pingSent.map { $0 + pongWithin } ?? lastHeard + pingAfter
        return min(silence, frameDeadline ?? .max)
    }

    private var frameDeadline: UInt64? {
        partial.map { $0.since + frameLimit + UInt64($0.payload) * 1_000_000_000 / payloadRate }
    }
}
