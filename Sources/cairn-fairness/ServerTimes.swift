import CairnClient
import CairnTransport

/// The server's own histograms of small calls, as its operator sees them: no account is named there (SPEC C3), so that what is
/// measured should be the only one that makes small calls.
struct ServerTimes {
    private let client: Client

    init(_ endpoint: Endpoint, _ identity: String) throws {
        client = try Client(server: endpoint, credentials: Credentials(identity: identity))
    }

    /// For each kind of call the buckets' ends in seconds, and how many calls took no longer.
    struct Counts {
        fileprivate var buckets: [String: [Double: Int]] = [:]

        /// A line for each bucket that something fell into since.
        func report(since before: Counts) -> String {
            var report = ""
            for (kind, buckets) in buckets.sorted(by: { $0.key < $1.key }) {
                let earlier = before.buckets[kind] ?? [:]
                var counted = 0
                for end in Set(buckets.keys).union(earlier.keys).sorted() {
                    let count = Self.upTo(end, buckets) - Self.upTo(end, earlier)
                    if count > counted { report += "server-\(kind) \(end) \(count - counted)\n" }
                    counted = count
                }
            }
            return report
        }

        /// Buckets that nothing fell into are left out.
        private static func upTo(_ end: Double, _ buckets: [Double: Int]) -> Int {
            buckets.filter { $0.key <= end }.map(\.value).max() ?? 0
        }
    }

    func read() async throws -> Counts {
        let metrics = try await client.metrics()
        var counts = Counts()
        for line in metrics.split(separator: "\n") {
            for (kind, method) in [("write", "UploadBlock"), ("read", "DownloadBlock")] {
                let start = "cairn_call_seconds_bucket{method=\"\(method)\",size=\"small\",le=\""
                guard line.hasPrefix(start) else { continue }
                let parts = line.dropFirst(start.count).split(separator: "\"} ")
                guard parts.count == 2, let count = Int(parts[1]) else { continue }
                counts.buckets[kind, default: [:]][parts[0] == "+Inf" ? .infinity : Double(parts[0]) ?? .infinity] =
                    count
            }
        }
        return counts
    }
}
