internal import CLinuxFile

#if canImport(Glibc)
    internal import Glibc
#endif

/// State that threads share and wait on: a mutex and a condition variable.
// Safety: the mutex guards the state; nothing else touches it.
final class Monitor<State>: @unchecked Sendable {
    private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
    private var state: State

    init(_ state: sending State) {
        self.state = state
        pthread_mutex_init(mutex, nil)
        pthread_cond_init(condition, nil)
    }

    deinit {
        pthread_cond_destroy(condition)
        pthread_mutex_destroy(mutex)
        condition.deallocate()
        mutex.deallocate()
    }

    /// Changes the state, and wakes one waiting thread where `body` says so. Nothing slow may happen in `body`.
    func change<Result>(_ body: (inout State) -> (Result, Wake)) -> Result {
        pthread_mutex_lock(mutex)
        let (result, wake) = body(&state)
        pthread_mutex_unlock(mutex)
        switch wake {
        case .nobody: break
        case .one: pthread_cond_signal(condition)
        case .all: pthread_cond_broadcast(condition)
        }
        return result
    }

    /// Waits until `take` gives something, and gives that. It is asked at once and after each wake-up.
    func wait<Result>(until take: (inout State) -> Result?) -> Result {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        while true {
            if let result = take(&state) { return result }
            pthread_cond_wait(condition, mutex)
        }
    }
}

/// Whom a change of a monitor's state concerns.
enum Wake { case nobody, one, all }

enum Threads {
    /// Runs `body` on a thread of its own, that nobody waits for. False where the system has no thread left.
    static func start(named name: String, _ body: @escaping @Sendable () -> Void) -> Bool {
        final class Start: Sendable {
            let name: String
            let body: @Sendable () -> Void
            init(name: String, body: @escaping @Sendable () -> Void) {
                self.name = name
                self.body = body
            }
        }
        let start = Unmanaged.passRetained(Start(name: name, body: body))
        var thread = pthread_t()
        let result = pthread_create(
            &thread,
            nil,
            { raw in
                let start = Unmanaged<Start>.fromOpaque(raw!).takeRetainedValue()
                // Linux cuts nothing, but refuses names beyond 15 bytes.
                cairn_name_this_thread(start.name)
                start.body()
                return nil
            },
            start.toOpaque()
        )
        guard result == 0 else {
            start.release()
            return false
        }
        pthread_detach(thread)
        return true
    }

    /// Processors that this process may run on.
    static var processors: Int { max(1, sysconf(Int32(_SC_NPROCESSORS_ONLN))) }
}
