import CairnClient
import CairnCore

/// What is done again and again.
public enum Workload: String, Sendable, CaseIterable, Codable {
    case sequentialUpload = "seq-upload"
    case randomUpload = "rand-upload"
    case sequentialDownload = "seq-download"
    case randomDownload = "rand-download"
    case mixed
    case describe
    case snapshots
    case clones

    /// For `--help`.
    public var summary: String {
        switch self {
        case .sequentialUpload: "uploads, one place after the other in each volume, again from the start at its end"
        case .randomUpload: "uploads to random places"
        case .sequentialDownload: "downloads, one place after the other, of volumes that were filled before"
        case .randomDownload: "downloads from random places of volumes that were filled before"
        case .mixed: "downloads (--read-percent) and uploads, at random places"
        case .describe: "DescribeVolume: the smallest call that looks something up"
        case .snapshots: "CreateSnapshot; beyond --keep of each lane the oldest is deleted"
        case .clones: "CreateVolume from a snapshot; beyond --keep of each lane the oldest is deleted"
        }
    }

    /// Whether operations carry bytes, so that ``WorkloadOptions/requestBytes`` matters.
    var carriesData: Bool { ![.describe, .snapshots, .clones].contains(self) }

    /// Whether volumes must hold data before it begins.
    var reads: Bool { [.sequentialDownload, .randomDownload, .mixed].contains(self) }

    var isSequential: Bool { self == .sequentialUpload || self == .sequentialDownload }
}

/// What is asked of a workload. Sizes in bytes.
public struct WorkloadOptions: Sendable, Equatable {
    /// Of one upload or download; a multiple of 512.
    public var requestBytes = 64 << 10
    /// Of each volume, in bytes; a multiple of 512, at least 1 MiB.
    public var volumeBytes: UInt64 = 1 << 30
    public var chunkSize = ChunkSize(bytes: 64 << 10)!
    /// Volumes of each account.
    public var volumes = 1
    /// Of `mixed`: how many of a hundred operations are downloads.
    public var readPercent = 70
    /// See ``ContentPlan/dedup``.
    public var dedup = 1.0
    /// See ``ContentPlan/compression``.
    public var compression = 1.0
    public var durability = Durability.durable
    /// With ``durability`` `onFlush`: each lane flushes after so many uploads; 0: never.
    public var flushEvery = 64
    /// Uploads are compressed before they are sent, chunk by chunk, as the transfer engine does.
    public var compressesFirst = false
    /// Volumes are filled before also where nothing is read, so that uploads overwrite.
    public var fills = false
    /// Full volumes are read once before, so that what then is read is in the server's page cache.
    public var readsFirst = false
    /// Snapshots or clones that each lane keeps before it deletes its oldest.
    public var keep = 16
    public var seed: UInt64 = 1

    public init() {}

    /// What this asks for, where the workload cares: for tables and files.
    public func facts(of workload: Workload) -> [String: String] {
        var facts = ["volumes": "\(volumes)", "volume_bytes": "\(volumeBytes)", "chunk_bytes": "\(chunkSize.bytes)"]
        if workload.carriesData {
            facts["request_bytes"] = "\(requestBytes)"
            facts["dedup"] = "\(dedup)"
            facts["compression"] = "\(compression)"
        }
        if workload == .mixed { facts["read_percent"] = "\(readPercent)" }
        if workload.uploads {
            facts["durability"] = durability == .durable ? "durable" : "on-flush"
            if durability == .onFlush { facts["flush_every"] = "\(flushEvery)" }
            facts["compressed_by"] = compressesFirst ? "client" : "server"
            facts["filled"] = "\(fillsVolumes(of: workload))"
        }
        if fillsVolumes(of: workload) { facts["read_first"] = "\(readsFirst)" }
        if workload == .snapshots || workload == .clones { facts["keep"] = "\(keep)" }
        return facts
    }

    /// Whether volumes hold data everywhere before the measured time begins.
    func fillsVolumes(of workload: Workload) -> Bool { workload.reads || (fills && workload.uploads) }

    /// - Throws: `invalid` where the options contradict each other or the service's limits.
    public func validate(for workload: Workload) throws(BenchError) {
        func demand(_ holds: Bool, _ text: String) throws(BenchError) {
            guard holds else { throw BenchError(.invalid, text) }
        }
        try demand(
            volumeBytes >= 1 << 20 && volumeBytes.isMultiple(of: 512),
            "a volume has 1 MiB or more, in sectors of 512"
        )
        try demand((1...10_000).contains(volumes), "an account can have 1 to 10,000 volumes here")
        try demand((0...100).contains(readPercent), "a read percentage is between 0 and 100")
        try demand(flushEvery >= 0 && keep >= 0 && keep <= 10_000, "counts are not negative, and --keep at most 10,000")
        guard workload.carriesData else { return }
        try demand(
            requestBytes >= 512 && requestBytes.isMultiple(of: 512) && requestBytes <= Limits.payloadBytes,
            "a request has 512 bytes to \(ByteCount.text(UInt64(Limits.payloadBytes))), in sectors of 512"
        )
        try demand(UInt64(requestBytes) <= volumeBytes, "a request is larger than its volume")
        let isWhole = requestBytes.isMultiple(of: chunkSize.bytes)
        try demand(
            dedup == 1 || isWhole,
            "only whole chunks are deduplicated: requests must be multiples of \(chunkSize)"
        )
        try demand(
            !compressesFirst || isWhole,
            "only whole chunks come compressed: requests must be multiples of \(chunkSize)"
        )
    }
}

extension Workload {
    var uploads: Bool { [.sequentialUpload, .randomUpload, .mixed].contains(self) }
}
