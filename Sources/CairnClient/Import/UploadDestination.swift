internal import CairnCore
internal import CairnWire
internal import Synchronization

/// Where an import's uploads go: a volume, or a snapshot in progress, whose progress they carry (SPEC S9, U1).
final class UploadDestination: Sendable {
    private struct State {
        /// What was reported and answered.
        var percent: Int
        /// A report is on its way. Only one is at a time: reports that overtook each other would go backwards.
        var isReporting = false
    }
    /// Whose shard is asked first for chunks.
    let volume: VolumeID
    /// What the source is compared with.
    let listed: BlockTarget
    private let target: BlockTarget
    private let dataVersion: DataVersion?
    private let state: Mutex<State>

    init(volume: VolumeID) {
        self.volume = volume
        target = .volume(volume)
        listed = target
        dataVersion = nil
        state = Mutex(State(percent: 0))
    }

    /// - Parameter progress: what was reported of the snapshot before.
    init(snapshot: SnapshotID, of volume: VolumeID, dataVersion: DataVersion, progress: Int) {
        self.volume = volume
        target = .snapshot(snapshot)
        listed = target
        self.dataVersion = dataVersion
        state = Mutex(State(percent: progress))
    }

    /// Of a run that sends nothing: what it compares with.
    init(comparing base: BlockTarget, of volume: VolumeID) {
        self.volume = volume
        target = base
        listed = base
        dataVersion = nil
        state = Mutex(State(percent: 0))
    }

    /// Sets where an upload goes, and, of a snapshot, how far the upload is.
    /// - Returns: the percentage that it carries, for ``reported(_:accepted:)``.
    func address(_ request: inout Wire.UploadBlockRequest, _ progress: TransferProgress) -> Int? {
        request.target = target.wire
        request.dataVersion = dataVersion?.rawValue ?? 0
        guard dataVersion != nil, let percent = progress.percent else { return nil }
        let isDue = state.withLock { state in
            guard !state.isReporting, percent > state.percent else { return false }
            state.isReporting = true
            return true
        }
        guard isDue else { return nil }
        request.progress = Wire.Progress(percent: UInt32(percent))
        return percent
    }

    /// The upload that carried a percentage was answered.
    func reported(_ percent: Int?, accepted: Bool) {
        guard let percent else { return }
        state.withLock { state in
            state.isReporting = false
            if accepted { state.percent = max(state.percent, percent) }
        }
    }
}

extension TransferProgress {
    /// How far it is, 0–99; 100 is for whoever knows that nothing is left. Nil where the total is not known.
    var percent: Int? {
        guard let total, total > 0 else { return nil }
        return min(99, Int(Double(done) / Double(total) * 100))
    }
}
