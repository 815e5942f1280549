import Foundation

/// The clock of all measurements: CLOCK_MONOTONIC, in nanoseconds.
enum Time {
    static func now() -> UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }

    /// Blocks this thread until then.
    static func sleep(until nanoseconds: UInt64) {
        var time = timespec(
            tv_sec: Int(nanoseconds / 1_000_000_000),
            tv_nsec: Int(nanoseconds % 1_000_000_000)
        )
        while clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, nil) == EINTR {}
    }

    static func nanoseconds(_ seconds: Double) -> UInt64 { UInt64(max(0, seconds) * 1e9) }
}

/// Processor time that a process has used, seconds.
public struct CPUTime: Sendable, Codable, Equatable {
    public var user: Double
    /// In the kernel.
    public var system: Double
    public var total: Double { user + system }

    public init(user: Double = 0, system: Double = 0) {
        self.user = user
        self.system = system
    }

    public static func - (left: CPUTime, right: CPUTime) -> CPUTime {
        CPUTime(user: left.user - right.user, system: left.system - right.system)
    }

    /// Of this process, all of its threads.
    static func ofThisProcess() -> CPUTime { used(__rusage_who_t(RUSAGE_SELF.rawValue)) }

    /// Of the processes that this one started and that have ended.
    static func ofChildren() -> CPUTime { used(__rusage_who_t(RUSAGE_CHILDREN.rawValue)) }

    private static func used(_ who: __rusage_who_t) -> CPUTime {
        var usage = rusage()
        getrusage(who, &usage)
        return CPUTime(user: seconds(usage.ru_utime), system: seconds(usage.ru_stime))
    }

    private static func seconds(_ time: timeval) -> Double { Double(time.tv_sec) + Double(time.tv_usec) / 1e6 }

    /// Of another process of this machine, in the kernel's ticks (10 ms); nil: there is none.
    static func ofProcess(_ pid: Int32) -> CPUTime? {
        guard let text = try? String(contentsOfFile: "/proc/\(pid)/stat", encoding: .utf8) else { return nil }
        return parse(stat: text, ticksPerSecond: Double(sysconf(Int32(_SC_CLK_TCK))))
    }

    /// The 14th and 15th field of proc(5)'s `stat`; the second, the name, may itself hold blanks and brackets.
    static func parse(stat text: String, ticksPerSecond: Double) -> CPUTime? {
        guard let end = text.lastIndex(of: ")") else { return nil }
        let fields = text[text.index(after: end)...].split(separator: " ")
        guard fields.count > 12, let user = Double(fields[11]), let system = Double(fields[12]) else { return nil }
        return CPUTime(user: user / ticksPerSecond, system: system / ticksPerSecond)
    }
}
