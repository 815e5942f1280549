import Foundation

/// How much memory this process may use.
enum MachineMemory {
    /// Bytes: those of the machine, or fewer where a control group of this process says so.
    static var bytes: UInt64 {
        min(ProcessInfo.processInfo.physicalMemory, groupLimit(in: "/", of: read("/proc/self/cgroup") ?? "") ?? .max)
    }

    /// The least limit of the control groups that `list` names (as `/proc/self/cgroup` does, of either version) and of those above them.
    /// - Parameter root: where the machine's file systems are.
    static func groupLimit(in root: String, of list: String) -> UInt64? {
        var limits: [UInt64] = []
        for line in list.split(separator: "\n") {
            let fields = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
            guard fields.count == 3 else { continue }
            let isUnified = fields[1].isEmpty
            guard isUnified || fields[1].split(separator: ",").contains("memory") else { continue }
            let top = root + (isUnified ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory")
            let file = isUnified ? "memory.max" : "memory.limit_in_bytes"
            var path = fields[2].split(separator: "/")
            while true {
                let folder = ([top] + path.map(String.init)).joined(separator: "/")
                // "max" is no number: no limit.
                if let limit = read(folder + "/" + file).flatMap({ UInt64($0.filter { !$0.isWhitespace }) }) {
                    limits.append(limit)
                }
                guard path.popLast() != nil else { break }
            }
        }
        return limits.min()
    }

    private static func read(_ path: String) -> String? { try? String(contentsOfFile: path, encoding: .utf8) }
}
