import CairnCore
import CairnLog
import Logging

/// When the index is copied: after so much log, or when copies that stand too far back hold the log's space.
extension Background {
    /// Starts a copy where one is due.
    func backUp() throws(StoreError) {
        let maker = shard.checkpoints
        guard !maker.isRunning, !maker.isResting else { return }
        let total = shard.unflushed.withLock { $0.totalLogBytes }
        let copied = maker.folder.checkpoints.last?.contents.logBytes
        // Where the log does not go back to its beginning, it is worth little without a copy.
        let isBare = copied == nil && maker.folder.retention == .none && shard.log.position != nil
        guard isBare || maker.isWanted || total >= (copied ?? 0) + shard.options.indexBackupBytes else { return }
        try flushIndex()
        guard let durable else { return }
        maker.start(at: durable, hurried: false) { [weak self] in self?.reclaimSoon() }
    }

    /// Dead segments wait for newer copies: these are made as soon as what waits is much, or much of the room that is left. Where none
    /// can be made and the log is full, or the index has no room, old ones go, and at last the index alone counts.
    func makeRoom(held: Int) throws(StoreError) {
        let (maker, log) = (shard.checkpoints, shard.log)
        guard !maker.isRunning else { return }
        let room = log.room
        let isMuch = UInt64(held * log.segmentSize) >= shard.options.indexBackupBytes
        let isPressing = log.isFull || shard.isShort.load(ordering: .relaxed)
        guard isPressing || isMuch || held * 2 >= room || log.isBelowReserve else { return }
        if maker.hasFailed, isPressing {
            try giveUpCopy()
            return schedule()
        }
        if maker.isResting { return }
        do throws(StoreError) { try flushIndex() } catch {
            // Then there is none for a copy either.
            if error.code == .full, isPressing { try giveUpCopy() }
            throw error
        }
        // Nothing is gained where all of them stand here already.
        guard let durable else { return }
        let checkpoints = maker.folder.checkpoints
        if checkpoints.count == CheckpointFolder.kept, checkpoints.allSatisfy({ $0.contents.position == durable }) {
            return
        }
        maker.start(at: durable, hurried: true) { [weak self] in self?.reclaimSoon() }
    }

    /// Copies, which take room themselves, are of less use than the index they are of.
    func giveUpCopy() throws(StoreError) {
        let folder = shard.checkpoints.folder
        guard folder.retention != .none else { return }
        try folder.giveUpOldest()
        shard.logger.warning(
            "a copy of the index is given up for room",
            metadata: ["left": "\(folder.checkpoints.count)"]
        )
    }
}
