import CairnCore

/// Work that would hold a worker for long.
extension Service {
    /// Does it a step at a time, each a job of its own: between them other accounts get their turn (SPEC R3), and what nobody waits
    /// for any more ends. Runs on a worker; the first step is part of the job that it is called from, and paid with that.
    /// - Parameters:
    ///   - bytes: what each further step costs, see ``Workers/run(for:bytes:_:)``.
    ///   - step: true: it was the last.
    ///   - body: on a worker.
    func inSteps<Work: Sendable>(
        _ context: CallContext,
        _ soFar: Work,
        bytes: Int = Limits.payloadBytes,
        _ step: @escaping @Sendable (inout Work) throws(ServiceError) -> Bool,
        then body: @escaping Answer<Work>
    ) {
        var work = soFar
        do throws(ServiceError) {
            try context.checkWanted()
            if try step(&work) { return body(.success(work)) }
        } catch { return body(.failure(error)) }
        let next = work
        workers.run(for: context.account, bytes: bytes) {
            self.inSteps(context, next, bytes: bytes, step, then: body)
        }
    }
}
