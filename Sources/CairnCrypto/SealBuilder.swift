public import CairnCore

/// Computes a snapshot's seal (SPEC S6) from its chunks' fingerprints, in order; client and server run the same code.
///
///     leaf  the chunk's fingerprint; of all-zero content, however it is stored, that of a chunk of zeros
///     node  SHA-256("cairn-seal-node-1" ‖ level ‖ children), 1–256 children; level is one byte, 1 above the leaves
///     root  the one node that is left; a single leaf is its own root
///     seal  SHA-256("cairn-seal-1" ‖ size, u64 ‖ chunk size, u32 ‖ root), the numbers little-endian
///
/// Runs of zeros cost a few hashes, whatever their length: the nodes over nothing but zeros are computed once.
public struct SealBuilder: Sendable {
    /// Children of a node.
    public static let fanOut = 256

    private let size: UInt64
    private let chunkSize: ChunkSize
    /// Of each level, from the leaves: what no node has been made of yet.
    private var open: [[Fingerprint]] = [[]]
    /// Of each level: the node over nothing but zeros; first the zero leaf.
    private var zeroNodes: [Fingerprint]
    /// Leaves that were added.
    public private(set) var leaves: UInt64 = 0

    /// - Parameter size: the snapshot's, in bytes; not 0.
    public init(size: UInt64, chunkSize: ChunkSize) {
        self.size = size
        self.chunkSize = chunkSize
        zeroNodes = [ZeroChunk.fingerprint(chunkSize)]
    }

    /// Leaves that a complete seal has.
    public var leafCount: UInt64 { chunkSize.count(for: size) }

    /// The next chunk's fingerprint.
    public mutating func add(_ leaf: Fingerprint) {
        leaves += 1
        push(leaf, level: 0)
    }

    /// The next ``fanOut`` chunks, by the node over them; as many, or a multiple, must have been added.
    public mutating func add(node: Fingerprint) {
        precondition(
            open[0].isEmpty && leaves.isMultiple(of: UInt64(SealBuilder.fanOut)),
            "a node in the middle of another"
        )
        leaves += UInt64(SealBuilder.fanOut)
        push(node, level: 1)
    }

    /// The node over ``fanOut`` chunks.
    public static func node(over leaves: [Fingerprint]) -> Fingerprint {
        precondition(leaves.count == fanOut)
        return node(1, leaves)
    }

    /// The next `count` chunks are zeros.
    public mutating func add(zeros count: UInt64) {
        leaves += count
        var left = count
        while left > 0 {
            // The highest whole subtree that begins here and fits.
            var level = 0
            var span: UInt64 = 1
            while open[level].isEmpty, left >= span * UInt64(SealBuilder.fanOut), span < 1 << 48 {
                level += 1
                span *= UInt64(SealBuilder.fanOut)
                if open.count == level { open.append([]) }
            }
            push(zeroNode(level), level: level)
            left -= span
        }
    }

    /// The seal. All leaves must have been added.
    public consuming func finish() -> Fingerprint {
        precondition(leaves == leafCount && leaves > 0, "\(leaves) of \(leafCount) leaves")
        var level = 0
        while open[level].count != 1 || open[(level + 1)...].contains(where: { !$0.isEmpty }) {
            if !open[level].isEmpty {
                let node = SealBuilder.node(level + 1, open[level])
                open[level] = []
                push(node, level: level + 1)
            }
            level += 1
        }
        var hasher = SHA256Hasher()
        hasher.update(Array("cairn-seal-1".utf8))
        var numbers = ByteWriter(capacity: 12)
        numbers.put(size)
        numbers.put(UInt32(chunkSize.bytes))
        hasher.update(numbers.bytes)
        hasher.update(open[level][0].bytes)
        return hasher.finish()
    }

    private mutating func push(_ fingerprint: Fingerprint, level: Int) {
        if open.count == level { open.append([]) }
        open[level].append(fingerprint)
        guard open[level].count == SealBuilder.fanOut else { return }
        let node = SealBuilder.node(level + 1, open[level])
        open[level].removeAll(keepingCapacity: true)
        push(node, level: level + 1)
    }

    private mutating func zeroNode(_ level: Int) -> Fingerprint {
        while zeroNodes.count <= level {
            let children = [Fingerprint](repeating: zeroNodes[zeroNodes.count - 1], count: SealBuilder.fanOut)
            zeroNodes.append(SealBuilder.node(zeroNodes.count, children))
        }
        return zeroNodes[level]
    }

    private static func node(_ level: Int, _ children: [Fingerprint]) -> Fingerprint {
        var hasher = SHA256Hasher()
        hasher.update(Array("cairn-seal-node-1".utf8))
        hasher.update([UInt8(level)])
        withUnsafeTemporaryAllocation(byteCount: children.count * Fingerprint.byteCount, alignment: 8) { bytes in
            for (index, child) in children.enumerated() {
                child.write(to: bytes.baseAddress! + index * Fingerprint.byteCount)
            }
            hasher.update(UnsafeRawBufferPointer(bytes))
        }
        return hasher.finish()
    }
}
