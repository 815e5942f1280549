internal import Synchronization

/// Joins a task's cancellation, which can come at any time, with the call that it is about.
final class CancelCell: Cancellable {
    private struct State {
        var target: (any Cancellable)?
        var cancelled = false
    }
    private let state = Mutex(State())

    /// Takes the call; cancels it at once if the cancellation came first.
    func hold(_ target: any Cancellable) {
        let late = state.withLock { state in
            state.target = target
            return state.cancelled
        }
        if late { target.cancel() }
    }

    func cancel() {
        let target = state.withLock { state in
            state.cancelled = true
            return state.target
        }
        target?.cancel()
    }
}
