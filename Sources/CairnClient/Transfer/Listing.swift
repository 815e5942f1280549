internal import CairnCore
internal import CairnWire
internal import Synchronization

/// Fetches a listing of blocks ahead of the transfer that uses it up: one page at a time is on its way, until enough wait.
final class Listing: Sendable {
    private struct State {
        var map: PlacementMap
        var next: [UInt8]? = []
        var isFetching = false
    }
    /// Descriptions that may wait, at about 100 bytes each, before the next page is fetched.
    private static let enough = Limits.blocksPerPage

    private let state: Mutex<State>
    private let target: BlockTarget
    private let caller: any Caller
    private let mayBeRefused: Bool

    /// - Parameters:
    ///   - mayBeRefused: whether the transfer goes on where the listing is not permitted (SPEC D5): nothing is known then.
    ///   - isReliable: false: the listing is of no use, and not fetched: nothing is known.
    init(
        of target: BlockTarget,
        chunkSize: ChunkSize,
        size: UInt64,
        caller: any Caller,
        mayBeRefused: Bool = false,
        isReliable: Bool = true
    ) {
        self.target = target
        self.caller = caller
        self.mayBeRefused = mayBeRefused
        var state = State(map: PlacementMap(chunkSize: chunkSize, size: size))
        if !isReliable {
            state.next = nil
            state.map.end()
        }
        self.state = Mutex(state)
    }

    /// Looks at what is known, and fetches more where little waits. `body` says by nil that it needs more.
    func use<Result>(for runner: PieceRunner, _ body: (inout PlacementMap) -> Result?) -> Result? {
        let (result, fetch) = state.withLock { state -> (Result?, [UInt8]?) in
            let result = body(&state.map)
            guard let next = state.next, !state.isFetching, result == nil || state.map.count < Listing.enough else {
                return (result, nil)
            }
            state.isFetching = true
            return (result, next)
        }
        if let fetch { self.fetch(fetch, for: runner) }
        return result
    }

    private func fetch(_ page: [UInt8], for runner: PieceRunner) {
        runner.call { counts in
            caller.start(Wire.ListBlocksRequest.page(page, of: target, in: nil)) { [weak runner] result in
                guard counts(), let runner else { return }
                do throws(ClientError) {
                    try self.take(result, after: page)
                    runner.wake()
                } catch {
                    runner.fail(error)
                }
            }
        }
    }

    private func take(
        _ result: Result<(Wire.ListBlocksResponse, BufferSlice?), ClientError>,
        after page: [UInt8]
    ) throws(ClientError) {
        if mayBeRefused, case .failure(let error) = result, error.answer?.reason == .permissionDenied {
            return state.withLock { state in
                state.isFetching = false
                state.next = nil
                state.map.end()
            }
        }
        try take(try result.get().0, after: page)
    }

    private func take(_ answer: Wire.ListBlocksResponse, after page: [UInt8]) throws(ClientError) {
        let next = answer.nextPageToken.isEmpty ? nil : answer.nextPageToken
        guard next == nil || next != page else {
            throw ClientError(.protocolViolation, "a listing's page names itself as the next")
        }
        let blocks = answer.blocks.map { BlockDescription($0) }
        let result = state.withLock { state in
            state.isFetching = false
            state.next = next
            return Result { () throws(ClientError) in try state.map.add(blocks, isLast: next == nil) }
        }
        try result.get()
    }
}
