public import CairnCore

/// Computes a snapshot's seal: the Merkle root, fan-out 256, over its chunks' fingerprints in order (SPEC S6).
///
///     leaf  = the chunk's fingerprint; of an all-zero chunk, however it is stored, the fingerprint of zeros
///     node  = SHA-256("cairn-seal-node-1" ‖ level u8, 1 above the leaves ‖ up to 256 children)
///     root  = the one node that is left; a single leaf is its own root
///     seal  = SHA-256("cairn-seal-1" ‖ size u64 LE ‖ chunk size u32 LE ‖ root)
///
/// Fed in order; holds 256 children for each level, whatever the volume's size. Runs of zeros cost a hash for each whole
/// subtree, and those are remembered: a volume of 64 TiB that is mostly holes is sealed in milliseconds.
public struct Seal {
    private static let fanOut = 256
    private let size: UInt64
    private let chunkSize: ChunkSize
    private let leafCount: UInt64
    /// For each level, from the leaves up: children that wait for their node to be full.
    private var levels: [[Fingerprint]] = [[]]
    /// The value of a whole subtree of zeros, for each level from the leaves up.
    private var zeroSubtrees: [Fingerprint]
    private var fed: UInt64 = 0

    /// - Parameter size: of the volume or snapshot, in bytes, not 0.
    public init(size: UInt64, chunkSize: ChunkSize) {
        precondition(size > 0)
        self.size = size
        self.chunkSize = chunkSize
        leafCount = chunkSize.count(for: size)
        zeroSubtrees = [ZeroChunk.fingerprint(chunkSize)]
    }

    /// The next chunk's fingerprint.
    public mutating func append(_ fingerprint: Fingerprint) {
        precondition(fed < leafCount)
        fed += 1
        add(fingerprint, at: 0)
    }

    /// The next `count` chunks are all zero.
    public mutating func append(zeros count: UInt64) {
        precondition(count <= leafCount - fed)
        var left = count
        fed += count
        while left > 0 {
            // The largest whole subtree that begins here: each level below it must have nothing waiting.
            var level = 0
            var span: UInt64 = 1
            while levels[level].isEmpty, span <= left / UInt64(Self.fanOut) {
                span *= UInt64(Self.fanOut)
                level += 1
                if levels.count == level { levels.append([]) }
            }
            add(zeroSubtree(level), at: level)
            left -= span
        }
    }

    /// The seal. Traps unless every chunk was given.
    public consuming func finish() -> Fingerprint {
        precondition(fed == leafCount, "\(leafCount - fed) chunks are missing")
        var level = 0
        // A level that holds one node and has nothing above is the root; what is above holds the nodes that came before.
        while true {
            let isTop = levels[(level + 1)...].allSatisfy(\.isEmpty)
            if isTop, levels[level].count == 1 { break }
            if !levels[level].isEmpty {
                let node = Self.node(levels[level], level: level + 1)
                levels[level] = []
                if levels.count == level + 1 { levels.append([]) }
                levels[level + 1].append(node)
            }
            level += 1
        }
        var hasher = SHA256Hasher()
        hasher.update(Array("cairn-seal-1".utf8))
        var writer = ByteWriter(capacity: 12)
        writer.put(size)
        writer.put(UInt32(chunkSize.bytes))
        hasher.update(writer.bytes)
        hasher.update(levels[level][0].bytes)
        return hasher.finish()
    }

    private mutating func add(_ value: Fingerprint, at level: Int) {
        var level = level
        levels[level].append(value)
        while levels[level].count == Self.fanOut {
            let node = Self.node(levels[level], level: level + 1)
            levels[level] = []
            level += 1
            if levels.count == level { levels.append([]) }
            levels[level].append(node)
        }
    }

    private mutating func zeroSubtree(_ level: Int) -> Fingerprint {
        while zeroSubtrees.count <= level {
            let child = zeroSubtrees[zeroSubtrees.count - 1]
            zeroSubtrees.append(Self.node(Array(repeating: child, count: Self.fanOut), level: zeroSubtrees.count))
        }
        return zeroSubtrees[level]
    }

    private static func node(_ children: [Fingerprint], level: Int) -> Fingerprint {
        var hasher = SHA256Hasher()
        hasher.update(Array("cairn-seal-node-1".utf8) + [UInt8(level)])
        var bytes: [UInt8] = []
        bytes.reserveCapacity(children.count * Fingerprint.byteCount)
        for child in children { bytes += child.bytes }
        hasher.update(bytes)
        return hasher.finish()
    }
}
