import CairnCore
import CairnTesting

@testable import CairnStore

/// How often each operation comes.
struct ModelMix: Sendable {
    enum Operation: CaseIterable, Sendable {
        case createLocal, clone, createPending, upload, write, complete, cancel, createSnapshot, deleteSnapshot,
            deleteVolume
        case grow, leases, read, settle, reopen, crash
    }

    let name: String
    private var weights: [Operation: Int] = [
        .createLocal: 20, .clone: 70, .createPending: 100, .upload: 260, .write: 150, .complete: 70, .cancel: 50,
        .createSnapshot: 40, .deleteSnapshot: 55, .deleteVolume: 25, .grow: 15, .leases: 15, .read: 100, .settle: 13,
        .reopen: 4, .crash: 5,
    ]

    init(_ name: String, _ changes: [Operation: Int] = [:]) {
        self.name = name
        weights.merge(changes) { $1 }
    }

    static let all = [
        ModelMix("balanced"),
        ModelMix("uploads", [.upload: 900, .write: 500]),
        ModelMix("clones", [.clone: 200, .write: 300, .createSnapshot: 120, .deleteVolume: 70]),
        ModelMix("cancels", [.cancel: 150, .createPending: 250]),
        ModelMix("restarts", [.settle: 30, .reopen: 20, .crash: 40]),
    ]

    /// For large volumes: many snapshots, and seals of all of them.
    static let seals = ModelMix(
        "seals",
        [.createSnapshot: 160, .deleteSnapshot: 120, .complete: 150, .settle: 60, .grow: 40, .crash: 15, .reopen: 10]
    )

    func pick(_ random: inout SeededRandom) -> Operation {
        // In the order of their declaration: a seed chooses the same.
        var left = random.below(weights.values.reduce(0, +))
        for operation in Operation.allCases {
            left -= weights[operation] ?? 0
            if left < 0 { return operation }
        }
        return .read
    }
}

/// What differs from run to run of the models.
struct ModelConfiguration: Sendable {
    let index: Int
    var chunkBytes: Int { [4 << 10, 8 << 10, 16 << 10, 64 << 10][(index + index / 4) % 4] }
    var segmentBytes: UInt64 { [1 << 20, 2 << 20, 4 << 20, 8 << 20][index % 4] }
    var checkpointBytes: UInt64 { [128 << 10, 512 << 10, 64 << 20][index % 3] }
    var indexFlushBytes: Int { [16 << 10, 256 << 10, 1 << 20, 32 << 20][index / 2 % 4] }
    var leaseMilliseconds: Int { [1, 2, 20, 200][index / 3 % 4] }
    var mix: ModelMix { ModelMix.all[index % ModelMix.all.count] }

    /// Distinct in their combinations.
    static let count = 20

    var options: StoreOptions {
        var options = StoreOptions()
        options.leaseTime = .milliseconds(leaseMilliseconds)
        options.checkpointBytes = checkpointBytes
        options.indexBackupBytes = options.checkpointBytes * 2
        options.indexFlushBytes = indexFlushBytes
        options.spareSegments = 1
        // So that other operations come in between.
        options.releaseStep = [256, 2, 16][index % 3]
        return options
    }

    var description: String {
        "\(mix.name), chunks \(chunkBytes), segments \(segmentBytes), checkpoints \(checkpointBytes), index \(indexFlushBytes), "
            + "leases \(leaseMilliseconds) ms"
    }
}
