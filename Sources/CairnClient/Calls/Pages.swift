/// A listing, fetched page by page as it is read. Iterating again asks the server again. It keeps its client.
public struct Pages<Element: Sendable>: AsyncSequence, Sendable {
    public typealias Failure = ClientError
    typealias Fetch = @Sendable (_ pageToken: [UInt8]) async throws(ClientError) -> (items: [Element], next: [UInt8])

    private let fetch: Fetch
    init(_ fetch: @escaping Fetch) { self.fetch = fetch }

    public struct AsyncIterator: AsyncIteratorProtocol {
        fileprivate let fetch: Fetch
        private var page: ArraySlice<Element> = []
        private var next: [UInt8]? = []

        fileprivate init(_ fetch: @escaping Fetch) { self.fetch = fetch }

        /// A page may be empty while a next one exists.
        public mutating func next(isolation actor: isolated (any Actor)?) async throws(ClientError) -> Element? {
            while page.isEmpty {
                guard let token = next else { return nil }
                let (items, following) = try await fetch(token)
                guard following.isEmpty || following != token else {
                    throw ClientError(.protocolViolation, "a listing's page names itself as the next")
                }
                page = items[...]
                next = following.isEmpty ? nil : following
            }
            return page.removeFirst()
        }
    }

    public func makeAsyncIterator() -> AsyncIterator { AsyncIterator(fetch) }

    /// All of it at once: for listings that are known to be short.
    public func all() async throws(ClientError) -> [Element] {
        var items: [Element] = []
        var iterator = makeAsyncIterator()
        while let item = try await iterator.next(isolation: nil) { items.append(item) }
        return items
    }
}
