import ArgumentParser

/// Measures calls on volumes, and prints the table.
struct Measuring: ParsableArguments {
    @Option(help: "Measured calls of each kind on each volume; at least 51.") var calls = 101
    @Option(help: "The server's process: its processor time is measured too.") var serverPid: Int32

    func validate() throws {
        guard calls >= 51 else { throw ValidationError("at least 51 calls are needed") }
    }

    /// - Parameter counted: what the subjects' chunks are, for the table's head.
    func run(_ subjects: [Subject], counted: String) async throws {
        // Seals are made in the background, which is not what is measured.
        let begin = ContinuousClock.now
        for subject in subjects {
            let taken = try await subject.waitForSeal(since: begin)
            print("sealed \(subject.chunks) \(counted), \(subject.snapshots) snapshots: after \(taken) s")
        }
        var table = Table(subjects.map { ($0.chunks, $0.snapshots) }, counted: counted)
        // Round by round, so that all of them meet the same machine.
        for round in 0..<calls {
            for (place, subject) in subjects.enumerated() {
                for measure in Measure.allCases {
                    let before = try ProcessTime.nanoseconds(of: serverPid)
                    let time = try await subject.time(measure, round)
                    let processor = try ProcessTime.nanoseconds(of: serverPid) - before
                    table.add(time / .microseconds(1), Double(processor) / 1000, measure, place)
                    try await subject.tidy(measure)
                }
            }
        }
        print(table.text, terminator: "")
    }
}
