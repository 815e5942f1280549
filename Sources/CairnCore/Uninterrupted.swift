#if canImport(Glibc)
    internal import Glibc
#endif

/// Repeats a system call that a signal interrupted (EINTR); `errno` is the last attempt's. Never for a sync: after a failed one the
/// state of the pages is not known.
public func uninterrupted<Result: SignedInteger>(_ call: () -> Result) -> Result {
    while true {
        let result = call()
        if result >= 0 || errno != EINTR { return result }
    }
}
