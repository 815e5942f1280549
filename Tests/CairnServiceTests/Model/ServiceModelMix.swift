import CairnTesting

/// How often each operation comes.
struct ServiceModelMix: Sendable {
    enum Operation: CaseIterable, Sendable {
        case upload, mark, download, list, compare, flush
        case createVolume, clone, deleteVolume, resize, tag, attach
        case createSnapshot, begin, uploadToSnapshot, report, deleteSnapshot, createSet, idle
        case stage, query, renew, release, expire
        case grant, withdraw, probe, strangers
        case repeated, quota, usage, freed, listings, seals
        case settle, restart, crash
    }

    let name: String
    /// Snapshots in progress that one volume has at most.
    let inProgress: Int
    /// Of all volumes and kinds, about.
    let snapshots: Int
    private var weights: [Operation: Int] = [
        .upload: 130, .mark: 40, .download: 60, .list: 25, .compare: 35, .flush: 10,
        .createVolume: 15, .clone: 55, .deleteVolume: 20, .resize: 8, .tag: 8, .attach: 6,
        .createSnapshot: 40, .begin: 60, .uploadToSnapshot: 120, .report: 70, .deleteSnapshot: 45, .createSet: 8,
        .idle: 3,
        .stage: 30, .query: 25, .renew: 8, .release: 8, .expire: 3,
        .grant: 40, .withdraw: 20, .probe: 60, .strangers: 30,
        .repeated: 20, .quota: 8, .usage: 8, .freed: 5, .listings: 10, .seals: 5,
        .settle: 3, .restart: 2, .crash: 3,
    ]

    init(_ name: String, inProgress: Int = 6, snapshots: Int = 45, _ changes: [Operation: Int] = [:]) {
        (self.name, self.inProgress, self.snapshots) = (name, inProgress, snapshots)
        weights.merge(changes) { $1 }
    }

    static let all = [
        ServiceModelMix("balanced"),
        ServiceModelMix("uploads", [.upload: 500, .mark: 150, .stage: 100, .flush: 40]),
        ServiceModelMix(
            "sharing",
            [.grant: 120, .withdraw: 70, .clone: 150, .probe: 200, .compare: 100, .deleteVolume: 35]
        ),
        ServiceModelMix(
            "snapshots in progress",
            inProgress: 40,
            snapshots: 120,
            [.begin: 180, .report: 150, .deleteSnapshot: 100, .uploadToSnapshot: 300, .idle: 8]
        ),
        ServiceModelMix("restarts", [.restart: 8, .crash: 15, .settle: 10, .repeated: 80]),
    ]

    func pick(_ random: inout SeededRandom) -> Operation {
        // In the order of their declaration: a seed chooses the same.
        var left = random.below(weights.values.reduce(0, +))
        for operation in Operation.allCases {
            left -= weights[operation] ?? 0
            if left < 0 { return operation }
        }
        return .probe
    }
}
