import Foundation
import Synchronization

/// What the fault shim (Tests/CCairnFaults) is to do in a server, and what it has seen: a file that both map.
///
/// The plan can be changed while the victim runs: it looks at each call.
// Safety: the mapping lives as long as this; its words are read and written whole, and the shim expects them to change.
final class FaultPlan: @unchecked Sendable {
    /// Kinds of calls, as bits: the places of `enum cairn_fault_kind`.
    struct Kinds: OptionSet, Sendable {
        let rawValue: UInt64
        static let open = Kinds(rawValue: 1 << 0)
        static let read = Kinds(rawValue: 1 << 1)
        static let write = Kinds(rawValue: 1 << 2)
        static let fsync = Kinds(rawValue: 1 << 3)
        static let fdatasync = Kinds(rawValue: 1 << 4)
        static let truncate = Kinds(rawValue: 1 << 5)
        static let allocate = Kinds(rawValue: 1 << 6)
        static let rename = Kinds(rawValue: 1 << 7)
        static let unlink = Kinds(rawValue: 1 << 8)
        static let mkdir = Kinds(rawValue: 1 << 9)
        /// An open that may make the file; ``open`` is one that may not.
        static let create = Kinds(rawValue: 1 << 10)
        static let link = Kinds(rawValue: 1 << 11)
        static let openFolder = Kinds(rawValue: 1 << 12)
        static let readFolder = Kinds(rawValue: 1 << 13)
        static let all = Kinds(rawValue: 1 << 14 - 1)
        /// What the kernel does not refuse for want of space: it takes none.
        static let spaceless: Kinds = [.open, .read, .unlink, .openFolder, .readFolder]
        static let names = [
            "open", "read", "write", "fsync", "fdatasync", "truncate", "allocate", "rename", "unlink", "mkdir",
            "create", "link", "opendir", "readdir",
        ]
    }

    /// `enum cairn_fault_action`.
    enum Action: UInt64, Sendable {
        case killBefore = 1
        case killHalfway, killAfter, eio, enospc, interrupted, short, pretend
    }

    /// `enum cairn_fault_mode`.
    enum Mode: UInt64, Sendable {
        case once
        /// From then on.
        case on
        /// From then on, but not when it is tried again.
        case every
    }

    private enum Word: Int { case at, action, mode, kinds, matched, fired, firedKind }
    private static let folderOffset = (7 + 16) * 8
    private static let fragmentOffset = folderOffset + 512
    private static let pathOffset = fragmentOffset + 64
    private static let byteCount = pathOffset + 512

    static let library = Program.folder + "/libCairnFaults.so"
    /// For the victim.
    var environment: [String: String] { ["LD_PRELOAD": Self.library, "CAIRN_FAULTS": path] }

    private let path: String
    private let memory: UnsafeMutableRawBufferPointer

    /// Nothing fails until ``arm(_:at:_:_:in:)``; calls are counted.
    /// - Parameter folder: only files under it are looked at.
    init(folder: String, in work: WorkFolder) throws {
        guard FileManager.default.fileExists(atPath: Self.library) else {
            throw HarnessError("\(Self.library) is missing")
        }
        path = work.fresh("faults")
        let descriptor = open(path, O_RDWR | O_CREAT | O_EXCL, 0o600)
        guard descriptor >= 0, ftruncate(descriptor, off_t(Self.byteCount)) == 0,
            let mapped = mmap(nil, Self.byteCount, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0),
            mapped != MAP_FAILED
        else { throw HarnessError("\(path) cannot be mapped") }
        close(descriptor)
        memory = UnsafeMutableRawBufferPointer(start: mapped, count: Self.byteCount)
        put(folder, at: Self.folderOffset, limit: 512)
        set(.kinds, Kinds.all.rawValue)
    }

    deinit {
        munmap(memory.baseAddress!, Self.byteCount)
        unlink(path)
    }

    /// From now on the call number `number` of these kinds, counted from now, has the fault.
    /// - Parameter fragment: only files whose path holds this.
    func arm(_ kinds: Kinds, at number: Int, _ action: Action, _ mode: Mode = .once, in fragment: String = "") {
        disarm()
        put(fragment, at: Self.fragmentOffset, limit: 64)
        set(.kinds, kinds.rawValue)
        set(.action, action.rawValue)
        set(.mode, mode.rawValue)
        set(.matched, 0)
        set(.fired, 0)
        set(.at, UInt64(number))
    }

    func disarm() { set(.at, 0) }

    /// Calls of the armed kinds since ``arm(_:at:_:_:in:)``.
    var matched: Int { Int(get(.matched)) }
    var fired: Int { Int(get(.fired)) }
    /// `fdatasync of shard-000/segments/00000001.seg`: the last fault.
    var firedCall: String {
        let kind = Int(get(.firedKind))
        return "\(Kinds.names[kind]) of \(text(at: Self.pathOffset))"
    }

    private func get(_ word: Word) -> UInt64 { memory.load(fromByteOffset: word.rawValue * 8, as: UInt64.self) }
    private func set(_ word: Word, _ value: UInt64) {
        memory.storeBytes(of: value, toByteOffset: word.rawValue * 8, as: UInt64.self)
    }

    private func put(_ text: String, at offset: Int, limit: Int) {
        let bytes = Array(text.utf8) + [0]
        precondition(bytes.count <= limit)
        UnsafeMutableRawBufferPointer(rebasing: memory[offset..<offset + bytes.count]).copyBytes(from: bytes)
    }

    private func text(at offset: Int) -> String {
        String(decoding: memory[offset...].prefix { $0 != 0 }, as: UTF8.self)
    }
}
