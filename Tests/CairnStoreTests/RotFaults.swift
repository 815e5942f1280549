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

/// One fault in the metadata of a closed store.
struct MetadataFault {
    let text: String
    /// What each file is to hold that holds something else, by its name in the store; none where the fault changes nothing.
    fileprivate let changes: [String: Data]

    init(_ random: inout SeededRandom, in image: MetadataImage) throws {
        let name = image.targets[random.below(image.targets.count)]
        var file = SpoiltFile(name: name, bytes: try image.healthy(name))
        let offset = random.below(max(1, file.bytes.count))
        var other: (name: String, bytes: Data)?
        switch random.below(5) {
        case 0: text = file.flip(at: offset, &random)
        case 1: text = file.zero(offset..<min(file.bytes.count, offset + 1 + random.below(4096)))
        case 2: text = file.cut(at: offset)
        case 3:
            let second = image.targets[random.below(image.targets.count)]
            other = (second, file.bytes)
            text = file.swap(with: second, try image.healthy(second))
        default: text = file.goBack(to: image.stale[name])
        }
        var changes: [String: Data] = [:]
        for name in try image.names(of: name) { changes[name] = file.bytes }
        if let other { for name in try image.names(of: other.name) { changes[name] = other.bytes } }
        self.changes = try changes.filter { try image.healthy($0.key) != $0.value }
    }

    /// Whether the index itself is hit.
    var isOfIndex: Bool { changes.keys.contains { $0.hasPrefix(MetadataImage.index + "/") } }
    /// The copies of the index that are hit.
    var copies: Set<UInt32> { Set(changes.keys.compactMap(MetadataImage.copyNumber)) }
    /// Whether the store's header or the superblock is hit, which a repair does not make anew.
    var isOfLog: Bool {
        changes.keys.contains { !$0.hasPrefix(MetadataImage.index + "/") && MetadataImage.copyNumber($0) == nil }
    }
}

/// Copies of a closed store, one after the other, each with a fault in its metadata.
final class MetadataImage {
    static let index = "shard-000/index"
    private static let reserve = "shard-000/index.reserve"

    private let original: String
    /// In memory where there is room: no fsync is proved.
    let copy = Torture.scratchFolder("cairn-rot")
    fileprivate let stale: [String: Data]
    fileprivate private(set) var targets: [String] = []
    /// By the number that the file system has for it.
    private var links: [UInt64: [String]] = [:]

    init(_ store: RotStore) throws {
        original = store.scratch.folder
        let prefix = original + "/"
        stale = Dictionary(uniqueKeysWithValues: store.stale.map { (String($0.key.dropFirst(prefix.count)), $0.value) })
        // Room without content, larger than all of the store.
        try? FileManager.default.removeItem(atPath: prefix + Self.reserve)
        for name in try FileManager.default.subpathsOfDirectory(atPath: original).sorted() {
            let last = (name as NSString).lastPathComponent
            // Of several SSTs each counts; the log texts and locks are nobody's data.
            if last.hasSuffix(".sst") || last.hasPrefix("MANIFEST") || last == "CURRENT" || last == "superblock"
                || last == "cairn.store" || last == "contents"
            {
                targets.append(name)
                let inode = try inode(name)
                links[inode, default: []].append(name)
            }
        }
    }

    /// The numbers of the copies of the index.
    var copies: Set<UInt32> { Set(targets.compactMap(Self.copyNumber)) }

    /// Of which copy of the index a file is; nil: of none.
    fileprivate static func copyNumber(_ name: String) -> UInt32? {
        let parts = name.split(separator: "/")
        return parts.count == 4 && parts[1] == "checkpoints" ? UInt32(parts[2]) : nil
    }

    fileprivate func healthy(_ name: String) throws -> Data {
        try Data(contentsOf: URL(fileURLWithPath: original + "/" + name))
    }

    private func inode(_ name: String) throws -> UInt64 {
        try FileManager.default.attributesOfItem(atPath: original + "/" + name)[.systemFileNumber] as! UInt64
    }

    /// All names of a file: copies of the index share tables, and what spoils one spoils the other.
    fileprivate func names(of name: String) throws -> [String] { links[try inode(name)] ?? [name] }

    func remove() { CairnStoreTests.remove(folder: copy) }

    /// Makes a new copy of the store, and spoils it.
    func make(with fault: MetadataFault) throws {
        remove()
        try FileManager.default.copyItem(atPath: original, toPath: copy)
        for (name, bytes) in fault.changes { try bytes.write(to: URL(fileURLWithPath: copy + "/" + name)) }
    }

    func removeIndex() throws { try FileManager.default.removeItem(atPath: copy + "/" + Self.index) }
}
