/// A limit against hanging was over.
public struct TimeLimitExceeded: Error, CustomStringConvertible {
    public let description: String
}

/// Runs `body`, and cancels it and throws after `limit`: a test that hangs is a test that failed.
public func within<Value: Sendable>(
    _ limit: Duration,
    _ what: String,
    _ body: @escaping @Sendable () async throws -> Value
) async throws -> Value {
    try await withThrowingTaskGroup(of: Value?.self) { group in
        group.addTask { try await body() }
        group.addTask {
            try await Task.sleep(for: limit)
            return nil
        }
        defer { group.cancelAll() }
        guard let value = try await group.next()! else {
            throw TimeLimitExceeded(description: "not within \(limit): \(what)")
        }
        return value
    }
}
