/// The version that `--version` prints and the handshake tells.
public enum ServerVersion {
    public static let text = "0.1.0"
    public static let agent = "cairnd/" + text
}
