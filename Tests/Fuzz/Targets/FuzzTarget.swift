/// What is fuzzed: each takes any bytes, and traps where something is wrong that no sanitizer sees.
///
/// The same code runs under libFuzzer (`Driver/`, built by `tools/fuzz`) and over the corpora in each `swift test`
/// (`Replay/`). A target keeps nothing from one input to the next, so that an input repeats what it found.
enum FuzzTarget: String, CaseIterable {
    /// A stream of bytes, cut into frames.
    case frame
    /// A sequence of frames and local events on one connection.
    case rpc
    /// The encoding of each message of the contract, and of the other bytes that clients hand back to us.
    case message
    /// An upload's blocks, LZ4 among them.
    case lz4
    /// A shard's segments and superblock, recovered.
    case segment
    /// A commit record, replayed into the index.
    case commit
    /// The values and keys of the index.
    case record

    func run(_ bytes: UnsafeRawBufferPointer) {
        switch self {
        case .frame: FrameTarget.run(bytes)
        case .rpc: SessionTarget.run(bytes)
        case .message: MessageTarget.run(bytes)
        case .lz4: UploadTarget.run(bytes)
        case .segment: SegmentTarget.run(bytes)
        case .commit: CommitTarget.run(bytes)
        case .record: RecordTarget.run(bytes)
        }
    }
}

/// An input, from its front to its end: decisions first, then bytes to be taken apart.
struct FuzzInput {
    private(set) var rest: UnsafeRawBufferPointer

    init(_ bytes: UnsafeRawBufferPointer) { rest = bytes }

    var isAtEnd: Bool { rest.isEmpty }

    /// 0 once the input is used up.
    mutating func byte() -> Int {
        guard let first = rest.first else { return 0 }
        rest = UnsafeRawBufferPointer(rebasing: rest.dropFirst())
        return Int(first)
    }

    mutating func below(_ bound: Int) -> Int { byte() % bound }
    mutating func flag() -> Bool { byte() & 1 == 1 }
    /// Two bytes, little-endian.
    mutating func word() -> Int { byte() | byte() << 8 }
    /// Four bytes, little-endian.
    mutating func long() -> UInt32 { UInt32(word()) | UInt32(word()) << 16 }

    /// At most `count` bytes of the input.
    mutating func bytes(_ count: Int) -> UnsafeRawBufferPointer {
        let taken = UnsafeRawBufferPointer(rebasing: rest.prefix(count))
        rest = UnsafeRawBufferPointer(rebasing: rest.dropFirst(count))
        return taken
    }
}
