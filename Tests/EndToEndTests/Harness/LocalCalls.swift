import CairnCore
import CairnRPC
import CairnWire
import Synchronization

/// Calls about LOCAL volumes, their snapshots, and staged chunks.
extension Caller {
    func createLocalVolume(size: UInt64 = 1 << 20, from snapshot: [UInt8] = []) async throws -> [UInt8] {
        try await call(
            Wire.CreateVolumeRequest(size: size, snapshotID: snapshot, chunkSize: 65536, kind: .local)
        ).message.volumeID
    }

    func begin(_ volume: [UInt8], _ change: (inout Wire.CreateSnapshotRequest) -> Void = { _ in }) async throws
        -> Wire.CreateSnapshotResponse
    {
        var request = Wire.CreateSnapshotRequest(volumeID: volume)
        change(&request)
        return try await call(request).message
    }

    @discardableResult
    func report(_ percent: UInt32, _ snapshot: [UInt8], rebased: Bool = false) async throws
        -> Wire.SnapshotProgressResponse
    {
        try await call(
            Wire.SnapshotProgressRequest(target: .snapshotID(snapshot), percent: percent, rebased: rebased)
        ).message
    }
}

/// A client's end of the server's questions (SPEC S10).
final class PromptAnswers: CallHandler {
    /// Nil: the question stays without an answer.
    private let percent: UInt32?
    private let state = Mutex<(asked: [[UInt8]], held: [IncomingCall])>(([], []))

    init(_ percent: UInt32?) { self.percent = percent }

    /// The snapshots that were asked about.
    var asked: [[UInt8]] { state.withLock { $0.asked } }

    func handle(_ call: IncomingCall) {
        guard call.method == UInt32(Wire.Method.promptProgress.rawValue),
            let request = try? Wire.PromptProgressRequest.decode(call.message)
        else { return call.fail(status: Status.unimplemented.rawValue, detail: []) }
        state.withLock { state in
            state.asked.append(request.snapshotID)
            if percent == nil { state.held.append(call) }
        }
        if let percent { call.reply(message: Wire.PromptProgressResponse(percent: percent).encode()) }
    }
}
