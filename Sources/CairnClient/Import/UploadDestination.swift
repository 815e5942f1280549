internal import CairnCore
internal import CairnWire
internal import Synchronization

/// Where an import's uploads go: a volume, or a snapshot in progress, whose progress they carry (SPEC S9, U1).
final class UploadDestination: Sendable {
    private struct State {
        /// The most that was said, whether it was answered or not: less may be refused (SPEC S9).
        var percent: Int
        /// A report is on its way. Only one is at a time: reports that overtook each other would go backwards.
        var isReporting = false
    }
    /// Whose shard is asked first for chunks.
    let volume: VolumeID
    /// What the source is compared with.
    let listed: BlockTarget
    /// Whether what is listed stays until somebody writes to it: see ``Client/isSettled(_:)``. If not, all of the source is sent,
    /// holes and zeros too.
    let isSettled: Bool
    private let target: BlockTarget
    private let dataVersion: DataVersion?
    private let state: Mutex<State>

    init(volume: VolumeID, isSettled: Bool) {
        self.volume = volume
        self.isSettled = isSettled
        target = .volume(volume)
        listed = target
        dataVersion = nil
        state = Mutex(State(percent: 0))
    }

    /// - Parameter progress: what was reported of the snapshot before.
    init(snapshot: SnapshotID, of volume: VolumeID, dataVersion: DataVersion, progress: Int, isSettled: Bool) {
        self.volume = volume
        self.isSettled = isSettled
        target = .snapshot(snapshot)
        listed = target
        self.dataVersion = dataVersion
        state = Mutex(State(percent: progress))
    }

    /// Of a run that sends nothing: the complete snapshot that it compares with.
    init(comparing base: SnapshotID, of volume: VolumeID) {
        self.volume = volume
        isSettled = true
        target = .snapshot(base)
        listed = target
        dataVersion = nil
        state = Mutex(State(percent: 0))
    }

    /// Sets where an upload goes, and, of a snapshot, how far the upload is.
    /// - Returns: whether it carries a report, which ``endReport()`` ends.
    func address(_ request: inout Wire.UploadBlockRequest, _ progress: TransferProgress) -> Bool {
        request.target = target.wire
        request.dataVersion = dataVersion?.rawValue ?? 0
        guard dataVersion != nil, progress.percent ?? 0 > reported, let percent = beginReport(progress) else {
            return false
        }
        request.progress = Wire.Progress(percent: UInt32(percent))
        return true
    }

    /// What is to be reported now, never less than before; nil while another report is on its way. ``endReport()`` ends it.
    func beginReport(_ progress: TransferProgress) -> Int? {
        state.withLock { state in
            guard !state.isReporting else { return nil }
            state.isReporting = true
            state.percent = max(state.percent, progress.percent ?? 0)
            return state.percent
        }
    }

    /// The report was answered, or failed.
    func endReport() { state.withLock { $0.isReporting = false } }

    /// Percent that were reported.
    var reported: Int { state.withLock { $0.percent } }
}

extension TransferProgress {
    /// How far it is, 0–99; 100 is for whoever knows that nothing is left. Nil where the total is not known.
    var percent: Int? {
        guard let total, total > 0 else { return nil }
        return min(99, Int(Double(done) / Double(total) * 100))
    }
}
