import CairnCore
import CairnTesting
import Foundation

@testable import CairnStore

/// A file's bytes, and what befalls them; each says what it did, for people.
private struct SpoiltFile {
    let name: String
    var bytes: Data

    mutating func flip(at offset: Int, _ random: inout SeededRandom) -> String {
        bytes[offset] ^= 1 << random.below(8)
        return "flip in \(name) at \(offset)"
    }

    mutating func zero(_ range: Range<Int>) -> String {
        bytes.replaceSubrange(range, with: Data(count: range.count))
        return "zeros in \(name) from \(range.lowerBound) to \(range.upperBound)"
    }

    mutating func cut(at offset: Int) -> String {
        bytes = bytes.prefix(offset)
        return "\(name) cut off at \(offset)"
    }

    mutating func swap(with other: String, _ theirs: Data) -> String {
        bytes = theirs
        return "\(name) and \(other) swapped"
    }

    /// - Parameter old: nil: there is none, and the bytes are zeroed.
    mutating func goBack(to old: Data?) -> String {
        bytes = old ?? Data(count: bytes.count)
        return old == nil ? "all of \(name) zeroed" : "an older copy of \(name)"
    }
}

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
        let name = (path as NSString).lastPathComponent
        var file = SpoiltFile(name: name, bytes: store.healthy[path]!)
        // Most faults hit where something lies.
        let block = random.below(file.bytes.count / 4096) * 4096
        let offset = block + random.below(4096)
        switch random.below(8) {
        case 0, 1: text = file.flip(at: offset, &random)
        case 2, 3: text = file.zero(offset..<min(file.bytes.count, offset + 512 << random.below(9)))
        case 4: text = file.cut(at: offset)
        case 5:
            let other = random.below(file.bytes.count / 4096) * 4096
            let (first, second) = (file.bytes[block..<block + 4096], file.bytes[other..<other + 4096])
            file.bytes.replaceSubrange(block..<block + 4096, with: second)
            file.bytes.replaceSubrange(other..<other + 4096, with: first)
            text = "blocks at \(block) and \(other) of \(name) swapped"
        case 6:
            let other = paths[random.below(paths.count)]
            changes.append((other, file.bytes))
            text = file.swap(with: (other as NSString).lastPathComponent, store.healthy[other]!)
        default:
            if random.chance(50), let old = store.stale[path], old.count == file.bytes.count {
                text = file.goBack(to: old)
            } else if let old = try store.olderHeader(of: path) {
                // As an earlier life of the segment would have left it.
                file.bytes = Data(old) + Data(random.bytes(file.bytes.count - old.count))
                text = "an earlier life of \(name)"
            } else {
                text = file.goBack(to: nil)
            }
        }
        changes.append((path, file.bytes))
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
        var file = SpoiltFile(name: name, bytes: try Data(contentsOf: URL(fileURLWithPath: path)))
        let offset = random.below(max(1, file.bytes.count))
        let text: String
        switch random.below(5) {
        case 0: text = file.flip(at: offset, &random)
        case 1: text = file.zero(offset..<min(file.bytes.count, offset + 1 + random.below(4096)))
        case 2: text = file.cut(at: offset)
        case 3:
            let other = targets[random.below(targets.count)]
            let theirs = try Data(contentsOf: URL(fileURLWithPath: copy + "/" + other))
            try file.bytes.write(to: URL(fileURLWithPath: copy + "/" + other))
            text = file.swap(with: other, theirs)
        default: text = file.goBack(to: stale[name])
        }
        try file.bytes.write(to: URL(fileURLWithPath: path))
        return text
    }
}
