/// Runs tasks on a loop's thread, between its connections' events: who awaits what a connection brings goes on at once, without
/// another thread to be woken. Tasks must not block there.
public final class LoopExecutor: TaskExecutor {
    private let loop: EventLoop

    public init(_ loop: EventLoop) { self.loop = loop }

    public func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        loop.execute { job.runSynchronously(on: self.asUnownedTaskExecutor()) }
    }
}
