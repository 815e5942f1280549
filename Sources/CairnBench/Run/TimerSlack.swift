internal import CLinuxFile

enum TimerSlack {
    /// The kernel may let a thread sleep 50 µs longer than asked for, which would be part of every latency of an open loop.
    static func least() { cairn_least_timer_slack() }
}
