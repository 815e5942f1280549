#if canImport(Glibc)
    internal import Glibc
#endif

/// How many descriptors, and so connections, the process may have open.
public enum DescriptorLimit {
    /// Raises the limit as far as the process may raise it itself (to RLIMIT_NOFILE's hard limit), and gives it. Where it cannot be
    /// raised, the limit as it is.
    @discardableResult
    public static func raise() -> Int {
        let resource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
        var limit = rlimit()
        guard getrlimit(resource, &limit) == 0 else { return 0 }
        let before = limit.rlim_cur
        limit.rlim_cur = limit.rlim_max
        let isRaised = setrlimit(resource, &limit) == 0
        return Int(clamping: isRaised ? limit.rlim_max : before)
    }
}
