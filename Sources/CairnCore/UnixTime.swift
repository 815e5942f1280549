#if canImport(Glibc)
    internal import Glibc
#endif

/// The wall clock, for what people and other programs read; deadlines use the monotonic clock.
public enum UnixTime {
    /// Milliseconds since 1970-01-01 UTC.
    public static var milliseconds: UInt64 {
        var now = timespec()
        clock_gettime(CLOCK_REALTIME, &now)
        return UInt64(now.tv_sec) * 1000 + UInt64(now.tv_nsec) / 1_000_000
    }
}
