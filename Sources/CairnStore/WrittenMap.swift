import CairnCore

/// A run of ``WrittenMap/chunks`` neighbouring chunks of one version of a lineage.
struct WrittenPlace: Hashable, Sendable, Comparable {
    let lineage: LineageID
    let version: DataVersion
    /// The run's number: chunk / ``WrittenMap/chunks``.
    let group: UInt64

    init(_ lineage: LineageID, _ version: DataVersion, _ chunk: ChunkIndex) {
        (self.lineage, self.version, group) = (lineage, version, chunk.rawValue / UInt64(WrittenMap.chunks))
    }

    static func < (left: WrittenPlace, right: WrittenPlace) -> Bool {
        (left.lineage, left.version, left.group) < (right.lineage, right.version, right.group)
    }
}

/// Which of a run of chunks a version has entries for: bit *i* % 8 of byte *i* / 8, for chunk *i* of the run, is 1 exactly when
/// the manifest has one. So what a version changed is found without a walk through the manifest.
struct WrittenMap: Hashable, Sendable {
    /// Chunks of one map. Its 64 bytes are small beside 512 manifest entries, and cheap to write again for a single one.
    static let chunks = 512
    static let bytes = chunks / 8

    private(set) var words = [UInt64](repeating: 0, count: chunks / 64)

    init() {}

    /// - Throws: `.damaged` where the bytes are no map.
    init(_ value: UnsafeRawBufferPointer) throws(StoreError) {
        guard value.count == Self.bytes else { throw StoreError(.damaged, "a written map has \(value.count) bytes") }
        for index in words.indices {
            words[index] = UInt64(littleEndian: value.loadUnaligned(fromByteOffset: index * 8, as: UInt64.self))
        }
    }

    var encoded: [UInt8] {
        var writer = ByteWriter(capacity: Self.bytes)
        for word in words { writer.put(word) }
        return writer.bytes
    }

    var isEmpty: Bool { words.allSatisfy { $0 == 0 } }

    subscript(_ chunk: ChunkIndex) -> Bool {
        get {
            let index = Int(chunk.rawValue % UInt64(Self.chunks))
            return words[index / 64] >> UInt64(index % 64) & 1 == 1
        }
        set {
            let index = Int(chunk.rawValue % UInt64(Self.chunks))
            let bit = UInt64(1) << UInt64(index % 64)
            if newValue { words[index / 64] |= bit } else { words[index / 64] &= ~bit }
        }
    }

    mutating func formUnion(_ other: WrittenMap) {
        for index in words.indices { words[index] |= other.words[index] }
    }

    /// The chunks of the run numbered `group` whose bits are set, in order.
    func chunks(of group: UInt64) -> [ChunkIndex] {
        var found: [ChunkIndex] = []
        for (index, word) in words.enumerated() {
            var left = word
            while left != 0 {
                let bit = left.trailingZeroBitCount
                found.append(ChunkIndex(group * UInt64(Self.chunks) + UInt64(index * 64 + bit)))
                left &= left - 1
            }
        }
        return found
    }
}

extension Transaction {
    /// Writes an entry of the manifest, and marks it in its written map.
    func putEntry(_ lineage: LineageID, _ chunk: ChunkIndex, _ version: DataVersion, _ entry: ManifestEntry)
        throws(StoreError)
    {
        overlay.put(Key.manifest(lineage, chunk, version), entry.encoded)
        try markWritten(lineage, chunk, version, true)
    }

    /// Removes an entry of the manifest, and its mark.
    func deleteEntry(_ lineage: LineageID, _ chunk: ChunkIndex, _ version: DataVersion) throws(StoreError) {
        overlay.delete(Key.manifest(lineage, chunk, version))
        try markWritten(lineage, chunk, version, false)
    }
}
