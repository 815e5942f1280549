public import CairnCore
import CairnLog

/// What volumes and snapshots hold, and what deleting them would free (SPEC R2), of one shard, as it is when the walk is made.
///
/// Distinct chunks are counted with a table of those that were seen. So that its memory stays bounded the fingerprints are cut
/// into ranges, as many as it takes, with a walk through the manifests for each.
public struct UsageWalk {
    /// What is asked about: of its record what the walk needs, and no more. An account may have a hundred thousand.
    public struct Target: Sendable {
        enum Name: Sendable, Hashable {
            case volume(VolumeID)
            case snapshot(SnapshotID)
        }

        let name: Name
        /// Bytes.
        public let size: UInt64
        /// What it reads; nil where it has no data here.
        let source: ReadSource?

        public static func volume(_ record: VolumeRecord) -> Self {
            let source = record.kind == .remote ? ReadSource(record) : nil
            return Self(name: .volume(record.id), size: record.size, source: source)
        }

        public static func snapshot(_ record: SnapshotRecord) -> Self {
            let source = record.state == .error ? nil : ReadSource(record)
            return Self(name: .snapshot(record.id), size: record.size, source: source)
        }

        public var isVolume: Bool { if case .volume = name { true } else { false } }
    }

    /// Bytes that are held, or would be freed.
    public struct Sum: Sendable, Hashable {
        /// Of distinct chunks, uncompressed.
        public var uniqueBytes: UInt64 = 0
        /// What those take in the log.
        public var chunkBytes: UInt64 = 0
        /// What parts of chunks take there.
        public var partBytes: UInt64 = 0

        public var storedBytes: UInt64 { chunkBytes + partBytes }

        public init() {}

        public static func += (sum: inout Sum, more: Sum) {
            sum.uniqueBytes += more.uniqueBytes
            sum.chunkBytes += more.chunkBytes
            sum.partBytes += more.partBytes
        }
    }

    /// Chunks and parts that the table holds at a time: about 100 bytes each.
    public static let tableItems = 1 << 17
    /// Entries between two looks at whether anybody still waits.
    private static let step = 1024
    /// Volumes or snapshots that are looked up together: each may have 32 KiB of tags.
    private static let listed = 64

    let view: ReadView
    let account: AccountNumber?
    private let name: AccountID
    private let tableItems: Int
    private let check: () throws(StoreError) -> Void

    /// - Parameters:
    ///   - account: whose volumes and snapshots are asked about.
    ///   - check: asked now and then; may block, and throws to end the walk.
    public init(
        _ shard: Shard,
        of account: AccountID,
        tableItems: Int = Self.tableItems,
        check: @escaping () throws(StoreError) -> Void
    ) throws(StoreError) {
        view = shard.makeView()
        name = account
        self.account = try view.accountNumber(account)
        (self.tableItems, self.check) = (tableItems, check)
    }

    /// The target as the walk sees it; nil where it was deleted before the walk was made. Only such targets may be walked: of another
    /// view's the manifest may be gone.
    public func present(_ target: Target) throws(StoreError) -> Target? {
        switch target.name {
        case .volume(let id): try view.volume(id).map(Target.volume)
        case .snapshot(let id): try view.snapshot(id).map(Target.snapshot)
        }
    }

    /// The account's snapshots, but the initial ones, and its volumes.
    public func everything() throws(StoreError) -> [Target] {
        var targets: [Target] = []
        try list { (place) throws(StoreError) in
            let page = try view.snapshots(of: name, after: place, limit: Self.listed)
            targets += page.filter { !$0.isInitial }.map(Target.snapshot)
            return page.count == Self.listed ? page.last.map { ($0.createdAt, $0.id.uuid) } : nil
        }
        try list { (place) throws(StoreError) in
            let page = try view.volumes(of: name, after: place, limit: Self.listed)
            targets += page.map(Target.volume)
            return page.count == Self.listed ? page.last.map { ($0.createdAt, $0.id.uuid) } : nil
        }
        return targets
    }

    private typealias Place = (createdAt: UInt64, id: UUID128)

    /// Page by page; `body` says behind which place the next one begins.
    private func list(_ body: (Place?) throws(StoreError) -> Place?) throws(StoreError) {
        var place: Place?
        repeat {
            try check()
            place = try body(place)
        } while place != nil
    }

    /// What the targets hold together: a chunk that several hold counts once. A LOCAL volume itself holds nothing here.
    public func holding(_ targets: [Target]) throws(StoreError) -> Sum {
        var sum = Sum()
        try passes { (pass) throws(StoreError) in
            try show(targets) { (resolved) throws(StoreError) in
                // What another account stores is its own to know of (SPEC C3): how large it is when compressed tells of its content.
                if case .data(let key, _) = resolved.base, key.account == account { pass.add(key) }
                guard resolved.patchLayers.allSatisfy({ $0.account == account }) else { return }
                for part in resolved.patches { pass.add(part) }
            }
            for chunk in pass.chunks.keys {
                guard let record = try view.chunk(chunk) else { continue }
                sum.uniqueBytes += UInt64(record.rawLength)
                sum.chunkBytes += UInt64(record.location.length)
            }
            sum.partBytes += pass.parts.values.reduce(0) { $0 + UInt64($1) }
        }
        return sum
    }

    /// What of the account's would be free if all of the targets were deleted, snapshots of the volumes that are in progress
    /// included: chunks that nothing but they refers to, and their parts. Chunks under a lease stay.
    public func freeing(_ targets: [Target]) throws(StoreError) -> Sum {
        let deletion = try Deletion(of: targets, view)
        var sum = Sum()
        var isFirst = true
        try passes { (pass) throws(StoreError) in
            for lineage in deletion.lineages {
                let record = try view.lineage(lineage)
                guard record.account == account else { continue }
                try deletion.unread(lineage, view, every: Self.step, check) { entry in
                    if case .data(let fingerprint, let owner) = entry.base {
                        pass.add(ChunkKey(account: record.account, owner: owner, fingerprint))
                    }
                    if isFirst { sum.partBytes += entry.patches.reduce(0) { $0 + $1.storedBytes } }
                }
            }
            isFirst = false
            for (chunk, count) in pass.chunks {
                guard let record = try view.chunk(chunk), record.references == count else { continue }
                sum.uniqueBytes += UInt64(record.rawLength)
                sum.chunkBytes += UInt64(record.location.length)
            }
        }
        return sum
    }

    /// What another shard would have to store of the chunks that the targets hold on theirs, each once.
    public static func lacking(
        _ parts: [(walk: UsageWalk, targets: [Target])],
        at other: UsageWalk
    ) throws(StoreError) -> UInt64 {
        guard let first = parts.first?.walk else { return 0 }
        var bytes: UInt64 = 0
        // The same chunk has another key on each shard: here they are as on the other one, where other accounts' are never found.
        let (own, foreign) = (other.account ?? AccountNumber(rawValue: 0), AccountNumber(rawValue: .max))
        try first.passes { (pass) throws(StoreError) in
            for part in parts {
                try part.walk.show(part.targets) { (resolved) throws(StoreError) in
                    guard case .data(let key, _) = resolved.base else { return }
                    let isOwn = key.account == part.walk.account && key.owner == part.walk.account
                    let place = ChunkKey(account: own, owner: isOwn ? own : foreign, key.fingerprint)
                    guard pass.add(place) else { return }
                    let here = other.account == nil ? nil : try other.view.chunk(place)
                    guard here.map({ $0.references == 0 }) ?? true else { return }
                    pass.sizes[place] = try part.walk.view.chunk(key)?.location.length
                }
            }
            bytes += pass.sizes.values.reduce(0) { $0 + UInt64($1) }
        }
        return bytes
    }

    private func passes(_ body: (inout UsagePass) throws(StoreError) -> Void) throws(StoreError) {
        var low: UInt64 = 0
        while true {
            var pass = UsagePass(from: low, limit: tableItems)
            try body(&pass)
            guard pass.high < .max else { return }
            low = pass.high + 1
        }
    }

    /// Every chunk that the targets show; one that several show, several times.
    private func show(_ targets: [Target], _ body: (ResolvedChunk) throws(StoreError) -> Void) throws(StoreError) {
        for target in targets {
            try check()
            guard let source = target.source else { continue }
            let end = source.chunkSize.count(for: source.size)
            var position = ChunkIndex(0)
            var looked = 0
            while let chunk = try view.nextEntry(source.lineage, from: position), chunk.rawValue < end {
                try body(try view.resolve(source.lineage, source.version, chunk))
                position = ChunkIndex(chunk.rawValue + 1)
                looked += 1
                if looked.isMultiple(of: Self.step) { try check() }
            }
        }
    }
}

/// The chunks and parts of one range of fingerprints. The range shrinks where there are too many for the table.
struct UsagePass {
    let low: UInt64
    private(set) var high: UInt64 = .max
    private let limit: Int
    /// How often each was added.
    private(set) var chunks: [ChunkKey: UInt64] = [:]
    /// Lengths, by places in the log.
    private(set) var parts: [UInt64: UInt32] = [:]
    /// Of chunks, where they matter.
    var sizes: [ChunkKey: UInt32] = [:]

    init(from low: UInt64, limit: Int) { (self.low, self.limit) = (low, limit) }

    /// - Returns: whether it is new to the table.
    @discardableResult mutating func add(_ chunk: ChunkKey) -> Bool {
        guard (low...high).contains(Self.position(chunk)) else { return false }
        let count = chunks[chunk, default: 0] + 1
        chunks[chunk] = count
        guard count == 1 else { return false }
        shrink()
        return (low...high).contains(Self.position(chunk))
    }

    mutating func add(_ part: Patch) {
        guard let location = part.location else { return }
        let place = UInt64(location.segment.rawValue) << 32 | UInt64(location.offset)
        guard (low...high).contains(Self.position(place)) else { return }
        parts[place] = location.length
        shrink()
    }

    private mutating func shrink() {
        while chunks.count + parts.count > limit, high > low {
            high = low + (high - low) / 2
            let range = low...high
            chunks = chunks.filter { range.contains(Self.position($0.key)) }
            sizes = sizes.filter { range.contains(Self.position($0.key)) }
            parts = parts.filter { range.contains(Self.position($0.key)) }
        }
    }

    private static func position(_ chunk: ChunkKey) -> UInt64 { chunk.fingerprint.words.0 }
    /// Neighbours in the log are spread over all ranges.
    private static func position(_ place: UInt64) -> UInt64 { place &* 0x9e37_79b9_7f4a_7c15 }
}
