extension PieceRunner: Cancellable {
    /// Runs to the end. Cancelling the task ends the run with `cancelled`.
    func run(workers: Int) async throws(ClientError) {
        let result = await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                start(workers: workers) { continuation.resume(returning: $0) }
            }
        } onCancel: {
            cancel()
        }
        try result.get()
    }

    func cancel() { fail(.cancelled) }
}
