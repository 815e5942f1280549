import Foundation

/// The Mann-Whitney U test, two-sided: how likely it is that two sets of samples of the same thing differ as much as these do, in
/// the order of their values. It asks nothing of the noise's shape.
enum RankTest {
    /// Above this many samples on a side the normal approximation is good to a percent.
    private static let exactLimit = 12

    /// - Returns: the probability, 0–1; 1 where either is empty.
    static func probability(_ left: [Double], _ right: [Double]) -> Double {
        guard !left.isEmpty, !right.isEmpty else { return 1 }
        // Each pair in which the right one is larger counts one, equal ones a half.
        var pairs = 0.0
        for a in left { for b in right { pairs += b > a ? 1 : b == a ? 0.5 : 0 } }
        let most = Double(left.count * right.count)
        let extreme = max(pairs, most - pairs)
        let hasTies = Set(left).union(right).count < left.count + right.count
        guard max(left.count, right.count) <= exactLimit, !hasTies else {
            return approximate(extreme, left, right)
        }
        return exact(extreme, left.count, right.count)
    }

    /// Counts the orders of both sets that are as extreme, among all of them.
    private static func exact(_ extreme: Double, _ left: Int, _ right: Int) -> Double {
        // ways[i][j][u]: orders of i left and j right ones with u pairs; built up by which comes last.
        var ways = Array(repeating: Array(repeating: [Double](), count: right + 1), count: left + 1)
        for i in 0...left {
            for j in 0...right {
                var counts = [Double](repeating: 0, count: i * j + 1)
                if i == 0 || j == 0 {
                    counts[0] = 1
                } else {
                    for (u, count) in ways[i - 1][j].enumerated() { counts[u] += count }
                    for (u, count) in ways[i][j - 1].enumerated() { counts[u + i] += count }
                }
                ways[i][j] = counts
            }
        }
        let all = ways[left][right].reduce(0, +)
        let tail = ways[left][right].suffix(from: Int(extreme.rounded(.up))).reduce(0, +)
        return min(1, 2 * tail / all)
    }

    private static func approximate(_ extreme: Double, _ left: [Double], _ right: [Double]) -> Double {
        let (n, m) = (Double(left.count), Double(right.count))
        var ties: [Double: Double] = [:]
        for value in left + right { ties[value, default: 0] += 1 }
        let total = n + m
        let correction = ties.values.reduce(0) { $0 + $1 * $1 * $1 - $1 } / (total * max(total - 1, 1))
        let variance = n * m / 12 * (total + 1 - correction)
        guard variance > 0 else { return 1 }
        let z = max(0, extreme - n * m / 2 - 0.5) / variance.squareRoot()
        return min(1, erfc(z / 2.0.squareRoot()))
    }
}
