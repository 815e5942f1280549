internal import CairnCore

#if canImport(Glibc)
    internal import Glibc
#endif

/// What an import reads: a file, a block device, or a pipe.
public final class ImportSource: Sendable {
    let file: OpenFile
    /// For messages.
    public let name: String
    /// Bytes; nil of a stream, whose length shows at its end.
    public let size: UInt64?

    private init(file: OpenFile, name: String) throws(ClientError) {
        self.file = file
        self.name = name
        do throws(SystemError) {
            switch try file.kind() {
            case .regular, .blockDevice:
                size = try file.size()
                file.willReadInOrder()
            case .stream: size = nil
            case .folder: throw SystemError(errno: EISDIR, operation: "read")
            }
        } catch {
            throw error.source(name)
        }
    }

    /// Opens a file, a block device, or a named pipe.
    /// - Throws: `source`, with the system's error number.
    public static func open(_ path: String) throws(ClientError) -> ImportSource {
        let file: OpenFile
        do throws(SystemError) {
            // Without waiting for a pipe's writer: a reader that waits where it reads can be cancelled.
            file = try OpenFile.open(path, OpenFile.readOnly | O_NONBLOCK)
        } catch {
            throw error.source(path)
        }
        return try ImportSource(file: file, name: path)
    }

    /// Standard input: a file that is redirected there is read as that file, holes and all, from its beginning.
    public static func standardInput() throws(ClientError) -> ImportSource {
        try ImportSource(file: OpenFile(descriptor: 0, closes: false), name: "standard input")
    }

    /// The size that a volume needs at least: the source's, up to the next multiple of 512. Nil of a stream.
    public var volumeSize: UInt64? { size.map(ImportSource.padded) }

    /// - Throws: `source` where it is shorter than when it was opened. What is gone of it looks like a hole.
    func checkSize() throws(ClientError) {
        guard let size else { return }
        let now: UInt64
        do throws(SystemError) {
            now = try file.size()
        } catch {
            throw error.source(name)
        }
        if now < size { throw shortened }
    }

    var shortened: ClientError { ClientError(.source, "\(name) became shorter while it was read") }

    static func padded(_ size: UInt64) -> UInt64 { (size + Limits.sector - 1) / Limits.sector * Limits.sector }
}

/// Goes through a source from front to back and cuts it into pieces. Owned by the one worker that feeds.
struct SourceCursor {
    /// What comes next.
    enum Step {
        /// Bytes to be read from the source: `[range.lowerBound, range.upperBound)`, of which `stored` are in the source
        /// and the rest is padding.
        case data(Range<UInt64>, stored: Int)
        /// Bytes that were read: of a stream, which cannot be read twice.
        case loaded(Range<UInt64>, Buffer)
        /// Nothing up to here.
        case hole(to: UInt64)
        case end
    }
    let source: ImportSource
    let layout: PieceLayout
    private(set) var position: UInt64 = 0
    /// The last extent of data that the file system told.
    private var extent: Range<UInt64> = 0..<0
    /// A stream's: it has ended here.
    private(set) var streamEnd: UInt64?

    init(_ source: ImportSource, layout: PieceLayout) {
        self.source = source
        self.layout = layout
    }

    /// How far the volume must be known before the next step can be taken.
    var horizon: UInt64 { min(position + UInt64(layout.pieceBytes), layout.volumeSize) }

    /// What lies at the present position, no further than `limit`, a chunk's start or the volume's end. Reads nothing but a
    /// stream, which knows no limit, and which it waits for as long as `goOn` says so.
    mutating func look(before limit: UInt64, goOn: () -> Bool) throws(ClientError) -> Step {
        guard let size = source.size else { return try readStream(goOn: goOn) }
        guard position < layout.volumeSize else { return .end }
        if position >= extent.upperBound, position < size { extent = try nextExtent(before: size) }
        guard position < size, extent.lowerBound < size else { return .hole(to: limit) }
        let start = min(layout.chunkStart(extent.lowerBound), limit)
        if start > position { return .hole(to: start) }
        let end = min(layout.chunkEnd(extent.upperBound), horizon, limit)
        return .data(position..<end, stored: Int(min(end, size) - position))
    }

    /// The first data at or after the present position; nothing at `size` where only a hole is left.
    private func nextExtent(before size: UInt64) throws(ClientError) -> Range<UInt64> {
        let data: Range<UInt64>?
        do throws(SystemError) {
            data = try source.file.data(from: position, size: size)
        } catch {
            throw error.source(source.name)
        }
        if let data { return data }
        try source.checkSize()
        return size..<size
    }

    /// The step up to `end` was taken.
    mutating func advance(to end: UInt64) { position = end }

    private mutating func readStream(goOn: () -> Bool) throws(ClientError) -> Step {
        if streamEnd != nil { return position < layout.volumeSize ? .hole(to: layout.volumeSize) : .end }
        let room = max(Int(horizon - position), 1)
        let buffer = BufferPool.shared.buffer(capacity: room)
        var count = 0
        while count < room {
            guard goOn() else { throw .cancelled }
            let target = UnsafeMutableRawBufferPointer(rebasing: buffer.memory[count..<room])
            let read: Int?
            do throws(SystemError) {
                read = try source.file.readStream(into: target, within: 200)
            } catch {
                throw error.source(source.name)
            }
            guard let read else { continue }
            if read == 0 {
                streamEnd = position + UInt64(count)
                break
            }
            count += read
        }
        guard position < layout.volumeSize else {
            guard count == 0 else { throw SourceCursor.tooLong(source.name, volume: layout.volumeSize) }
            return .end
        }
        guard count > 0 else { return .hole(to: layout.volumeSize) }
        let end = min(layout.chunkEnd(position + UInt64(count)), layout.volumeSize)
        let rest = UnsafeMutableRawBufferPointer(rebasing: buffer.memory[count..<Int(end - position)])
        rest.initializeMemory(as: UInt8.self, repeating: 0)
        buffer.count = Int(end - position)
        return .loaded(position..<end, buffer)
    }

    static func tooLong(_ name: String, volume: UInt64) -> ClientError {
        ClientError(
            .invalidRequest,
            "\(name) is longer than the volume's \(ByteCount.text(volume)): resize the volume first"
        )
    }
}
