import CairnCore
import CairnTesting
import Foundation

@testable import CairnStore

/// One fault in the segments of an open store.
struct SegmentFault {
    private let store: RotStore
    /// What each file is to hold; nil bytes beyond the end are cut off.
    private var changes: [(path: String, bytes: Data)] = []
    let text: String

    init(_ random: inout SeededRandom, in store: RotStore) throws {
        self.store = store
        let paths = store.healthy.keys.sorted()
        let path = paths[random.below(paths.count)]
        var bytes = store.healthy[path]!
        let name = (path as NSString).lastPathComponent
        // Most faults hit where something lies.
        let block = random.below(bytes.count / 4096) * 4096
        let offset = block + random.below(4096)
        switch random.below(8) {
        case 0, 1:
            bytes[offset] ^= 1 << random.below(8)
            text = "flip in \(name) at \(offset)"
        case 2, 3:
            let end = min(bytes.count, offset + 512 << random.below(9))
            bytes.replaceSubrange(offset..<end, with: Data(count: end - offset))
            text = "zeros in \(name) from \(offset) to \(end)"
        case 4:
            bytes = bytes.prefix(offset)
            text = "\(name) cut off at \(offset)"
        case 5:
            let other = random.below(bytes.count / 4096) * 4096
            let (first, second) = (bytes[block..<block + 4096], bytes[other..<other + 4096])
            bytes.replaceSubrange(block..<block + 4096, with: second)
            bytes.replaceSubrange(other..<other + 4096, with: first)
            text = "blocks at \(block) and \(other) of \(name) swapped"
        case 6:
            let other = paths[random.below(paths.count)]
            changes.append((other, bytes))
            bytes = store.healthy[other]!
            text = "\(name) and \((other as NSString).lastPathComponent) swapped"
        default:
            if random.chance(50), let old = store.stale[path], old.count == bytes.count {
                bytes = old
                text = "an older copy of \(name)"
            } else if let old = try store.olderHeader(of: path) {
                // As an earlier life of the segment would have left it.
                bytes = Data(old) + Data(random.bytes(bytes.count - old.count))
                text = "an earlier life of \(name)"
            } else {
                bytes = Data(count: bytes.count)
                text = "all of \(name) zeroed"
            }
        }
        changes.append((path, bytes))
    }

    func apply() throws { for (path, bytes) in changes { try Self.put(bytes, path) } }
    func undo() throws { for (path, _) in changes { try Self.put(store.healthy[path]!, path) } }

    /// In place: the store has the file open.
    private static func put(_ bytes: Data, _ path: String) throws {
        let file = try FileHandle(forUpdating: URL(fileURLWithPath: path))
        defer { try? file.close() }
        try file.truncate(atOffset: UInt64(bytes.count))
        try file.seek(toOffset: 0)
        try file.write(contentsOf: bytes)
    }
}

/// Copies of a closed store, one after the other, each with a fault in its metadata.
final class MetadataImage {
    private let original: String
    let copy: String
    private let stale: [String: Data]
    private var targets: [String] = []

    init(_ store: RotStore) throws {
        original = store.scratch.folder
        copy = original + "-image"
        let prefix = original + "/"
        stale = Dictionary(uniqueKeysWithValues: store.stale.map { (String($0.key.dropFirst(prefix.count)), $0.value) })
        for name in try FileManager.default.subpathsOfDirectory(atPath: original).sorted() {
            let last = (name as NSString).lastPathComponent
            // Of several SSTs each counts; the log texts and locks are nobody's data.
            if last.hasSuffix(".sst") || last.hasPrefix("MANIFEST") || last == "CURRENT" || last == "superblock"
                || last == "cairn.store"
            {
                targets.append(name)
            }
        }
    }

    func remove() { CairnStoreTests.remove(folder: copy) }

    /// Makes a new copy, and spoils it.
    /// - Returns: what was done, for people.
    func spoil(_ random: inout SeededRandom) throws -> String {
        remove()
        try FileManager.default.copyItem(atPath: original, toPath: copy)
        let name = targets[random.below(targets.count)]
        let path = copy + "/" + name
        var bytes = try Data(contentsOf: URL(fileURLWithPath: path))
        let offset = random.below(max(1, bytes.count))
        let text: String
        switch random.below(5) {
        case 0:
            bytes[offset] ^= 1 << random.below(8)
            text = "flip in \(name) at \(offset)"
        case 1:
            let end = min(bytes.count, offset + 1 + random.below(4096))
            bytes.replaceSubrange(offset..<end, with: Data(count: end - offset))
            text = "zeros in \(name) from \(offset) to \(end)"
        case 2:
            bytes = bytes.prefix(offset)
            text = "\(name) cut off at \(offset)"
        case 3:
            let other = targets[random.below(targets.count)]
            let theirs = try Data(contentsOf: URL(fileURLWithPath: copy + "/" + other))
            try bytes.write(to: URL(fileURLWithPath: copy + "/" + other))
            bytes = theirs
            text = "\(name) and \(other) swapped"
        default:
            guard let old = stale[name] else {
                bytes = Data(count: bytes.count)
                text = "all of \(name) zeroed"
                break
            }
            bytes = old
            text = "an older copy of \(name)"
        }
        try bytes.write(to: URL(fileURLWithPath: path))
        return text
    }
}
