import Dispatch

#if canImport(Glibc)
    internal import Glibc
#endif

/// Notices when a certificate file changes, so that a revocation takes effect without a restart (SPEC C1).
///
/// Looks at modification times every few seconds: that works on every file system, and through the renames by which
/// such files are replaced.
// Safety: `seen` and `changed` are only touched on `queue`.
final class CertificateWatch: @unchecked Sendable {
    private struct Stamp: Equatable {
        var seconds = 0
        var nanoseconds = 0
        var inode: UInt64 = 0
        var size = 0
    }

    private static let interval = DispatchTimeInterval.seconds(2)
    private let files: [String]
    private let queue = DispatchQueue(label: "cairn.certificates")
    private let timer: any DispatchSourceTimer
    private var seen: [Stamp]
    private var changed: @Sendable () -> Void = {}

    init(_ configuration: Configuration) {
        files = [configuration.ca, configuration.cert, configuration.key, configuration.crl].filter { !$0.isEmpty }
        seen = files.map(Self.stamp)
        timer = DispatchSource.makeTimerSource(queue: queue)
    }

    func start(_ changed: @escaping @Sendable () -> Void) {
        queue.sync { self.changed = changed }
        timer.schedule(deadline: .now() + Self.interval, repeating: Self.interval)
        timer.setEventHandler { [weak self] in self?.look() }
        timer.activate()
    }

    func stop() { timer.cancel() }

    func reload() { queue.async { self.changed() } }

    private func look() {
        let now = files.map(Self.stamp)
        guard now != seen else { return }
        seen = now
        changed()
    }

    private static func stamp(_ path: String) -> Stamp {
        var facts = stat()
        guard stat(path, &facts) == 0 else { return Stamp() }
        return Stamp(
            seconds: facts.st_mtim.tv_sec,
            nanoseconds: facts.st_mtim.tv_nsec,
            inode: UInt64(facts.st_ino),
            size: Int(facts.st_size)
        )
    }
}
