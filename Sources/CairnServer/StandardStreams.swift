#if canImport(Glibc)
    internal import Glibc
#endif

/// Unbuffered lines to the standard streams: a reader of the ready line must not wait for a buffer to fill.
public enum StandardOutput {
    public static func write(_ text: String) { put(text, STDOUT_FILENO) }
}

public enum StandardError {
    public static func write(_ text: String) { put(text, STDERR_FILENO) }
}

private func put(_ text: String, _ descriptor: Int32) {
    var text = text
    text.withUTF8 { _ = write(descriptor, $0.baseAddress, $0.count) }
}
