internal import CairnWire

/// The server itself (SPEC R4).
extension Client {
    /// The server's facts and limits, and who it takes us for.
    public func serverFacts() async throws(ClientError) -> ServerFacts {
        ServerFacts(try await caller.call(Wire.GetServerFactsRequest()).0)
    }

    /// What is wrong with the server, for people; empty: it is healthy.
    public func healthProblems() async throws(ClientError) -> [String] {
        let answer = try await caller.call(Wire.GetHealthRequest()).0
        guard !answer.healthy else { return [] }
        return answer.problems.isEmpty ? ["unhealthy"] : answer.problems
    }

    /// Measurements as Prometheus text: only of what the caller may see.
    public func metrics() async throws(ClientError) -> String {
        try await caller.call(Wire.GetMetricsRequest()).0.text
    }
}
