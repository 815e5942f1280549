import CairnCore
import CairnLog
import Glibc
import Synchronization

/// The copies of a shard's index (FORMAT.md, "Checkpoints"):
///
///     checkpoints/00000007/contents   what it holds, written last (CheckpointContents)
///     checkpoints/00000007/…          RocksDB's files, copied; table files that the one before has too are linked to that one's
///     checkpoints/given-up            there was no room for any: the index alone counts
///
/// Never links to the index's own files: what spoils one must not spoil both. Any thread; makes one at a time.
final class CheckpointFolder: Sendable {
    /// How many are kept.
    static let kept = 2

    let path: String
    /// That holds log, index and copies.
    let shardFolder: String
    private let identity: LogIdentity
    private struct State {
        /// Rising.
        var checkpoints: [Checkpoint] = []
        /// Folders whose contents are of no use.
        var damaged: [UInt32] = []
        /// Those of them that the disk would not read: they may be whole.
        var unread: Set<UInt32> = []
        var isGivenUp = false
        /// Where the index stood when the making of a copy began.
        var begun: LogPosition?
    }
    private let state: Mutex<State>

    /// - Parameter shard: the shard's folder.
    /// - Throws: `.io`.
    init(shard: String, identity: LogIdentity) throws(StoreError) {
        shardFolder = shard
        path = shard + "/checkpoints"
        self.identity = identity
        state = Mutex(State())
        try read()
    }

    /// Those that can be used as far as their contents tell, oldest first.
    var checkpoints: [Checkpoint] { state.withLock { $0.checkpoints } }
    /// Numbers of folders whose contents are missing, damaged, or not to be read.
    var damaged: [UInt32] { state.withLock { $0.damaged } }

    /// What of the log the checkpoints want, also the one that is being made. Without any, all of it, for it may be all that there is
    /// beside the index; and all while there are some of which it is not known.
    var retention: LogRetention {
        state.withLock { state in
            if !state.unread.isEmpty || state.checkpoints.isEmpty && !state.isGivenUp { return .all }
            let positions = state.checkpoints.map(\.contents.position) + [state.begun].compactMap(\.self)
            return positions.min { $0.lsn < $1.lsn }.map { .after($0) } ?? .none
        }
    }

    /// From here until ``end()`` the log behind a position is kept for the copy that is being made. To be called by who recycles
    /// segments, before the copy is begun.
    /// - Parameter durable: where the durable index stands.
    func begin(at durable: LogPosition) { state.withLock { $0.begun = durable } }

    /// The copy is made, or is not.
    func end() { state.withLock { $0.begun = nil } }

    func folder(_ number: UInt32) -> String { "\(path)/\(Self.name(number))" }

    private static func name(_ number: UInt32) -> String {
        let digits = String(number)
        return String(repeating: "0", count: max(0, 8 - digits.count)) + digits
    }

    private func read() throws(StoreError) {
        var found = State()
        for name in try Files.names(in: path) {
            if name == "given-up" { found.isGivenUp = true }
            guard let number = UInt32(name), Self.name(number) == name else { continue }
            do throws(StoreError) {
                if let contents = try readContents(of: number) {
                    found.checkpoints.append(Checkpoint(number: number, contents: contents))
                    continue
                }
            } catch { found.unread.insert(number) }
            found.damaged.append(number)
        }
        found.checkpoints.sort { $0.number < $1.number }
        found.damaged.sort()
        state.withLock { $0 = found }
    }

    /// What lies on the disk. Nil where it is missing, damaged, or another shard's.
    /// - Throws: `.io`.
    private func readContents(of number: UInt32) throws(StoreError) -> CheckpointContents? {
        let path = "\(folder(number))/contents"
        let bytes: [UInt8]
        do throws(StoreError) { bytes = try Files.read(path, limit: CheckpointContents.byteLimit) } catch {
            if error.code == .damaged || !Files.exists(path) { return nil }
            throw error
        }
        guard let contents = CheckpointContents.decode(bytes), contents.identity == identity else { return nil }
        return contents
    }

    /// Removes what an interrupted making or removal left.
    func tidy() throws(StoreError) {
        for name in try Files.names(in: path) where name.hasSuffix(".new") || name.hasSuffix(".old") {
            try Files.removeFolder("\(path)/\(name)")
        }
    }

    // MARK: Making

    /// Copies the durable index. It must hold a position.
    /// - Parameters:
    ///   - index: the folder of `database`.
    ///   - between: called after each piece of so many bytes; may wait, or throw.
    /// - Throws: `.full` where there is no room, with some left for the store itself; `.io`; what `between` throws.
    func make(
        of database: IndexDatabase,
        in index: String,
        between: (Int) throws(StoreError) -> Void
    ) throws(StoreError) -> Checkpoint {
        try Files.makeFolder(path)
        try tidy()
        // RocksDB itself writes some of the links' folder, and does not survive it where there is no room (IndexRoom).
        try checkRoom(for: try Files.names(in: index).filter { $0.hasPrefix("MANIFEST") }, in: index)
        let links = path + "/links.new"
        let fresh = path + "/copy.new"
        do throws(StoreError) {
            try database.link(to: links)
            let (position, logBytes) = try Self.standing(links)
            if let begun = state.withLock({ $0.begun }) {
                precondition(begun.lsn <= position.lsn, "the copy is older than what is kept of the log for it")
            }
            var contents = CheckpointContents(
                identity: identity,
                position: position,
                logBytes: logBytes,
                madeAt: UnixTime.milliseconds,
                database: try Self.identity(of: index),
                files: []
            )
            try Files.makeFolder(fresh)
            contents.files = try copy(links, to: fresh, of: contents.database, between)
            try Files.write(fresh + "/contents", contents.encoded)
            try Files.sync(fresh)
            let number = (state.withLock { ($0.checkpoints.map(\.number) + $0.damaged).max() } ?? 0) + 1
            try Files.rename(fresh, folder(number))
            try Files.sync(path)
            try Files.removeFolder(links)
            let made = Checkpoint(number: number, contents: contents)
            state.withLock { $0.checkpoints.append(made) }
            try setGivenUp(false)
            return made
        } catch {
            // What is left of it must not take the room that was missing.
            try? Files.removeFolder(fresh)
            try? Files.removeFolder(links)
            throw error
        }
    }

    /// Where an index stands that nobody changes.
    private static func standing(_ folder: String) throws(StoreError) -> (LogPosition, UInt64) {
        var settings = IndexDatabase.Options()
        settings.cacheBytes = 1 << 20
        let database = try IndexDatabase(path: folder, settings, .readOnly)
        guard let position = try database.position() else {
            throw StoreError(.invalid, "an index without a commit needs no copy")
        }
        return (position, try database.logBytes())
    }

    /// RocksDB's name for the index: with it a number of a table file is never used twice. Empty: not known.
    private static func identity(of index: String) throws(StoreError) -> String {
        guard let bytes = try? Files.read(index + "/IDENTITY", limit: 1024) else { return "" }
        return String(decoding: bytes, as: UTF8.self).filter { !$0.isWhitespace }
    }

    /// - Parameter database: RocksDB's name for the index; files of a copy of the same are linked.
    private func copy(
        _ links: String,
        to fresh: String,
        of database: String,
        _ between: (Int) throws(StoreError) -> Void
    ) throws(StoreError) -> [CheckpointContents.File] {
        let previous = checkpoints.last.flatMap { last in
            last.contents.database == database && !database.isEmpty ? last : nil
        }
        let known = Dictionary(uniqueKeysWithValues: (previous?.contents.files ?? []).map { ($0.name, $0) })
        var files: [CheckpointContents.File] = []
        var copied: [String] = []
        for name in try Files.names(in: links).sorted() where !Self.isNoPart(name) {
            let size = try Files.size("\(links)/\(name)")
            if let file = known[name], name.hasSuffix(".sst"), file.bytes == size, let previous,
                link("\(folder(previous.number))/\(name)", "\(fresh)/\(name)") == 0
            {
                files.append(file)
            } else {
                copied.append(name)
            }
        }
        try checkRoom(for: copied, in: links)
        for name in copied {
            let (checksum, bytes) = try Files.copy("\(links)/\(name)", to: "\(fresh)/\(name)", between: between)
            files.append(CheckpointContents.File(name: name, bytes: bytes, checksum: checksum))
        }
        return files.sorted { $0.name < $1.name }
    }

    /// A copy must not take the room that the index itself needs next: its failing would stop the shard.
    private func checkRoom(for names: [String], in folder: String) throws(StoreError) {
        var bytes: UInt64 = 0
        // One may just have been removed by RocksDB.
        for name in names { bytes += (try? Files.size("\(folder)/\(name)")) ?? 0 }
        guard let space = LocalSegmentStorage.space(path) else { throw Files.error("look at", path) }
        guard bytes + min(space.total / 16, 256 << 20) <= space.available else {
            throw StoreError(.full, "there is no room for a copy of the index: \(ByteCount.text(bytes))")
        }
    }

    /// RocksDB's messages, its lock, and its name for the database, which a restored one must not share.
    private static func isNoPart(_ name: String) -> Bool {
        name.hasPrefix("LOG") || name == "LOCK" || name == "IDENTITY" || name == "contents"
    }

    // MARK: Removing

    /// Removes all but the newest two, and what is damaged and older than these.
    func prune() throws(StoreError) {
        let (old, damaged) = state.withLock { state in
            let old = state.checkpoints.dropLast(Self.kept)
            let keptFrom = state.checkpoints.suffix(Self.kept)
            let isEnough = keptFrom.count == Self.kept
            return (Array(old), state.damaged.filter { isEnough && $0 < keptFrom.first!.number })
        }
        for number in old.map(\.number) + damaged { try remove(number) }
    }

    /// Removes the oldest, for room; before it one that cannot be read, and holds back more. Without any left, the index alone counts
    /// from now on.
    func giveUpOldest() throws(StoreError) {
        if let number = state.withLock({ $0.unread.min() ?? $0.checkpoints.first?.number }) { try remove(number) }
        if checkpoints.isEmpty { try setGivenUp(true) }
    }

    /// Durable on return, before anything that it holds back may be written over.
    func remove(_ number: UInt32) throws(StoreError) {
        let doomed = folder(number) + ".old"
        try Files.rename(folder(number), doomed)
        try Files.sync(path)
        state.withLock { state in
            state.checkpoints.removeAll { $0.number == number }
            state.damaged.removeAll { $0 == number }
            state.unread.remove(number)
        }
        try Files.removeFolder(doomed)
    }

    /// Puts one out of the way that is no use, and leaves it there for people to look at.
    func moveAside(_ number: UInt32) throws(StoreError) {
        var name = folder(number) + ".bad"
        while Files.exists(name) { name += "x" }
        try Files.rename(folder(number), name)
        try Files.sync(path)
        try read()
    }

    func setGivenUp(_ isGivenUp: Bool) throws(StoreError) {
        guard state.withLock({ $0.isGivenUp }) != isGivenUp else { return }
        try Files.makeFolder(path)
        if isGivenUp {
            // Where there is not even room for that, the next start keeps more of the log than it need.
            do throws(StoreError) { try Files.write(path + "/given-up", []) } catch {
                guard error.code == .full else { throw error }
            }
        } else {
            unlink(path + "/given-up")
        }
        try Files.sync(path)
        state.withLock { $0.isGivenUp = isGivenUp }
    }

    // MARK: Using

    /// What is wrong with a checkpoint's files; each names the file. Reads all of them.
    func verify(_ checkpoint: Checkpoint) -> [String] {
        var problems: [String] = []
        // What is known of it here may have been read long ago.
        do throws(StoreError) {
            if try readContents(of: checkpoint.number) != checkpoint.contents {
                problems.append("contents is missing or damaged")
            }
        } catch { problems.append("contents: \(error)") }
        for file in checkpoint.contents.files {
            do throws(StoreError) {
                let found = try Files.checksum(of: "\(folder(checkpoint.number))/\(file.name)")
                if found.bytes != file.bytes {
                    problems.append("\(file.name) has \(found.bytes) bytes of \(file.bytes)")
                } else if found.checksum != file.checksum {
                    problems.append("\(file.name) fails its checksum")
                }
            } catch { problems.append("\(file.name): \(error)") }
        }
        return problems
    }

    /// Copies a checkpoint's files into a new folder; durable on return, but for the folder's name.
    /// - Throws: `.damaged` where a file is not what it was, `.io`, `.full`.
    func restore(_ checkpoint: Checkpoint, to target: String) throws(StoreError) {
        try Files.makeFolder(target)
        for file in checkpoint.contents.files {
            let source = "\(folder(checkpoint.number))/\(file.name)"
            let copied = try Files.copy(source, to: "\(target)/\(file.name)") { (_) throws(StoreError) in }
            guard copied.bytes == file.bytes, copied.checksum == file.checksum else {
                throw StoreError(.damaged, "\(source) fails its checksum")
            }
        }
        try Files.sync(target)
    }
}

extension IndexDatabase {
    /// The last commit that is applied.
    func position() throws(StoreError) -> LogPosition? {
        try get(Key.position).map { bytes throws(StoreError) in try LogPosition.decode(bytes) }
    }

    /// Bytes of log up to there, since the shard was made.
    func logBytes() throws(StoreError) -> UInt64 {
        guard let bytes = try get(Key.logBytes) else { return 0 }
        return bytes.withUnsafeBytes { raw in
            var reader = ByteReader(raw)
            return reader.take(UInt64.self) ?? 0
        }
    }
}

extension IndexOverlay {
    /// What is put with every commit that is applied, and is not in its record.
    func put(position: LogPosition, logBytes: UInt64) {
        put(Key.position, position.encoded)
        put(Key.logBytes, withUnsafeBytes(of: logBytes.littleEndian, Array.init))
    }
}
