internal import CairnCrypto
internal import CairnRPC
public import CairnTransport

/// A connection to Cairn: every call of the API, safe to use from any number of tasks at once.
///
/// Calls wait for a connection, are repeated where that is safe (``RetryPolicy``), and end at the latest after
/// ``ClientOptions/callLimit``. Cancelling a task cancels its call. Creates and deletes carry an idempotency key that the
/// library makes, so that a repetition is never a second creation (SPEC C5).
///
/// ```swift
/// let client = try Client(
///     server: Endpoint(host: "storage.example", port: 7440),
///     credentials: Credentials(identity: "pki/alice"))
/// let volume = try await client.createVolume(NewVolume())
/// ```
public final class Client: Sendable {
    let caller: any Caller
    private let pool: ConnectionPool?
    public let options: ClientOptions
    let prompts: ProgressPrompts
    /// Runs tasks on the thread that the answers come in on, which spares each call the waking of another one: for many small calls,
    /// where a few microseconds count. A task that prefers it must never block, nor compute for long: all of the client's calls
    /// would stand still. Of a client with several connections only some of the answers come in there.
    public let executor: any TaskExecutor

    /// Makes no connection yet: the first call does.
    /// - Throws: `configuration` where a file of the credentials is missing or no certificate or key.
    public init(
        server: Endpoint,
        credentials: Credentials,
        options: ClientOptions = ClientOptions()
    ) throws(ClientError) {
        let files = TLSFiles(
            authorities: [credentials.authorities],
            certificate: credentials.certificate,
            privateKey: credentials.privateKey
        )
        let tls: TLSContext
        do throws(TLSError) {
            tls = try TLSContext(.client, files: files)
        } catch {
            throw ClientError(.configuration, error.text)
        }
        prompts = ProgressPrompts(options.onProgressPrompt)
        let home = EventLoops.shared.next()
        executor = LoopExecutor(home)
        let loops = options.connections <= 1 ? EventLoops(home) : .shared
        let opener = Links.opener(to: server, tls: tls, options: options, prompts: prompts, loops: loops)
        let pool = ConnectionPool(options: options, open: opener)
        self.pool = pool
        self.options = options
        caller = pool
    }

    /// A client of anything that answers calls.
    init(caller: any Caller, options: ClientOptions = ClientOptions()) {
        self.caller = caller
        self.options = options
        executor = LoopExecutor(EventLoops.shared.next())
        prompts = ProgressPrompts(options.onProgressPrompt)
        pool = nil
    }

    /// Closes the connections; calls under way fail.
    public func close() { pool?.close() }

    deinit { pool?.close() }
}
