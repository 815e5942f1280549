/// What `cairn-bench ceilings --json` writes.
public struct CeilingsFile: Codable, Sendable {
    public static let currentSchema = "cairn-ceilings/1"
    public var schema = CeilingsFile.currentSchema
    public var createdAt: String
    public var machine: Machine
    public var primitives: [Primitive]
    /// What could not be measured, and why.
    public var missing: [String: String]

    public init(createdAt: String, machine: Machine, primitives: [Primitive], missing: [String: String]) {
        self.createdAt = createdAt
        self.machine = machine
        self.primitives = primitives
        self.missing = missing
    }

    /// The table at the end.
    public var text: String {
        var rows = [["", "by", "rate", "CPU", "in the kernel", "wall", ""]]
        for each in primitives {
            let isData = each.bytesPerSecond > 0
            let rate = isData ? Text.bytes(perSecond: each.bytesPerSecond) : Text.rate(each.operationsPerSecond) + "/s"
            let cpu: String
            if let perGiB = each.cpuSecondsPerGib {
                cpu = Text.digits(perGiB) + " s/GiB"
            } else {
                cpu = each.cpuUsPerOperation.map { Text.digits($0) + " µs/op" } ?? "-"
            }
            let kernel =
                each.cpuSeconds.total > 0
                ? Text.digits(each.cpuSeconds.system / each.cpuSeconds.total * 100) + " %" : "-"
            rows.append([each.name, each.by, rate, cpu, kernel, Text.digits(each.seconds) + " s", each.note])
        }
        var text = Text.table(rows) + "\n"
        for (name, reason) in missing.sorted(by: { $0.key < $1.key }) { text += "\(name): not measured: \(reason)\n" }
        return text
    }
}

/// One thing that this machine can do, and how fast.
public struct Primitive: Codable, Sendable {
    public var name: String
    /// Whose code measured it: `cairn-bench`, or the public tool.
    public var by: String
    /// 0: does not matter.
    public var blockBytes: Int
    public var seconds: Double
    /// 0 where it is about operations, or the tool tells only a rate.
    public var bytes: UInt64
    public var operations: UInt64
    public var bytesPerSecond: Double
    public var operationsPerSecond: Double
    public var cpuSeconds: CPUSeconds
    /// Nil where it is not about data.
    public var cpuSecondsPerGib: Double?
    public var cpuUsPerOperation: Double?
    public var note: String
}
