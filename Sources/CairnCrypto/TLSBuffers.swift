internal import COpenSSL

#if canImport(Glibc)
    internal import Glibc
#endif

/// Where TLS sessions take ciphertext from and put it: one for each loop, lent to whichever session has its turn, so that
/// an idle session holds no buffers. Confined to the loop.
///
/// Input is consumed whole within an event: what is left of a record moves into OpenSSL's own buffer.
public final class TLSBuffers {
    /// What one read from a socket takes at most.
    public static let inputCapacity = 128 << 10
    /// What one write to a socket gives at most.
    public static let outputCapacity = 256 << 10

    /// What the BIO's callbacks see: plain memory at an address that stays.
    struct Window {
        var input: UnsafeMutableRawPointer
        var inputPosition = 0
        var inputCount = 0
        var output: UnsafeMutableRawPointer
        var outputCount = 0
    }
    let window: UnsafeMutablePointer<Window>
    /// The BIO type: one for the process, as OpenSSL has numbers for no more than some hundred.
    // Safety: set up once, only read afterwards.
    nonisolated(unsafe) static let method: OpaquePointer = {
        guard let method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "cairn window") else {
            fatalError("out of memory")
        }
        BIO_meth_set_read(method, readWindow)
        BIO_meth_set_write(method, writeWindow)
        BIO_meth_set_ctrl(method, controlWindow)
        return method
    }()

    public init() {
        guard let input = malloc(TLSBuffers.inputCapacity), let output = malloc(TLSBuffers.outputCapacity) else {
            fatalError("out of memory")
        }
        window = .allocate(capacity: 1)
        window.initialize(to: Window(input: input, output: output))
    }

    deinit {
        free(window.pointee.input)
        free(window.pointee.output)
        window.deallocate()
    }

    /// Memory to receive into; then say how much came with ``received(_:)``.
    public var input: UnsafeMutableRawBufferPointer {
        UnsafeMutableRawBufferPointer(start: window.pointee.input, count: TLSBuffers.inputCapacity)
    }
    /// `count` bytes of ciphertext lie at the start of ``input``.
    public func received(_ count: Int) {
        precondition(count >= 0 && count <= TLSBuffers.inputCapacity)
        window.pointee.inputPosition = 0
        window.pointee.inputCount = count
    }
    /// Whether all that was received has been taken.
    var isInputUsedUp: Bool { window.pointee.inputPosition == window.pointee.inputCount }
    /// Ciphertext that waits to be sent.
    public var output: UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: window.pointee.output, count: window.pointee.outputCount)
    }
    /// The output was sent or copied.
    public func clearOutput() { window.pointee.outputCount = 0 }
    /// Forgets everything: the next session has its turn.
    public func reset() {
        window.pointee.inputPosition = 0
        window.pointee.inputCount = 0
        window.pointee.outputCount = 0
    }
}

private func window(of bio: OpaquePointer?) -> UnsafeMutablePointer<TLSBuffers.Window> {
    BIO_get_data(bio)!.assumingMemoryBound(to: TLSBuffers.Window.self)
}

private let readWindow: @convention(c) (OpaquePointer?, UnsafeMutablePointer<CChar>?, Int32) -> Int32 = {
    bio,
    bytes,
    count in
    cairn_bio_clear_retry(bio)
    let window = window(of: bio)
    let available = min(Int(count), window.pointee.inputCount - window.pointee.inputPosition)
    guard available > 0, let bytes else {
        cairn_bio_retry_read(bio)
        return -1
    }
    memcpy(bytes, window.pointee.input + window.pointee.inputPosition, available)
    window.pointee.inputPosition += available
    return Int32(available)
}

private let writeWindow: @convention(c) (OpaquePointer?, UnsafePointer<CChar>?, Int32) -> Int32 = { bio, bytes, count in
    cairn_bio_clear_retry(bio)
    let window = window(of: bio)
    let room = min(Int(count), TLSBuffers.outputCapacity - window.pointee.outputCount)
    guard room > 0, let bytes else {
        cairn_bio_retry_write(bio)
        return -1
    }
    memcpy(window.pointee.output + window.pointee.outputCount, bytes, room)
    window.pointee.outputCount += room
    return Int32(room)
}

private let controlWindow: @convention(c) (OpaquePointer?, Int32, Int, UnsafeMutableRawPointer?) -> Int = {
    _,
    command,
    _,
    _ in
    // Flushing is the transport's business; everything else is not supported.
    command == BIO_CTRL_FLUSH ? 1 : 0
}
