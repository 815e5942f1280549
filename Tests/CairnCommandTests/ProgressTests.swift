import CairnClient
import Testing

@testable import cairn

struct ProgressTests {
    static func progress(done: UInt64, of total: UInt64?) -> TransferProgress {
        var progress = TransferProgress()
        progress.total = total
        progress.done = done
        progress.payload = 512 << 20
        progress.deduplicated = 1 << 30
        progress.zero = 100 << 20
        return progress
    }

    @Test func aWideLineShowsEverything() {
        let line = ProgressLine.render(
            Self.progress(done: 5 << 30, of: 20 << 30),
            verb: "import",
            rate: 512 * 1024 * 1024,
            width: 200
        )
        #expect(
            line
                == "import  [#####---------------]   25 %  512 MiB/s  ETA 0:30  sent 512 MiB  deduplicated 1.00 GiB  zero 100 MiB"
        )
    }

    @Test(arguments: 1...150)
    func itNeverWraps(width: Int) {
        let line = ProgressLine.render(
            Self.progress(done: 1 << 30, of: 20 << 30),
            verb: "import",
            rate: 1e9,
            width: width
        )
        #expect(line.count <= max(width - 1, 10))
        #expect(line.hasPrefix("import"))
    }

    @Test func aStreamHasNoEnd() {
        let line = ProgressLine.render(Self.progress(done: 3 << 30, of: nil), verb: "import", rate: 0, width: 60)
        #expect(line == "import  3 GiB  sent 512 MiB  deduplicated 1.00 GiB")
    }

    @Test func exportsReceive() {
        #expect(
            ProgressLine.render(Self.progress(done: 1, of: 1), verb: "export", rate: 1, width: 120).contains(
                "received 512 MiB"
            )
        )
    }

    @Test(arguments: [
        (0.2, "0:01"), (59.5, "1:00"), (725, "12:05"), (10_927, "3:02:07"), (1e9, "--:--"), (.infinity, "--:--"),
    ])
    func clocks(seconds: Double, text: String) { #expect(ProgressLine.clock(seconds) == text) }

    @Test(
        arguments: [
            (0, "0 B"), (998, "998 B"), (1000, "0.98 KiB"), (1536, "1.50 KiB"), (10 << 20, "10.0 MiB"),
            (999 << 20, "999 MiB"),
            (1000 << 20, "0.98 GiB"), (UInt64.max, "16384 PiB"),
        ] as [(UInt64, String)]
    )
    func shortSizes(bytes: UInt64, text: String) { #expect(ProgressLine.short(bytes) == text) }

    @Test func theRateFollowsSlowly() {
        var meter = RateMeter()
        meter.note(0, at: .zero)
        meter.note(100, at: .seconds(1))
        #expect(meter.rate == 100)
        meter.note(100, at: .seconds(2))
        #expect(meter.rate > 60 && meter.rate < 70)
        meter.note(50, at: .seconds(3))
        #expect(meter.rate > 0, "what is taken back is no speed")
    }

    @Test func durations() {
        #expect(Output.duration(.milliseconds(420)) == "0.42 s")
        #expect(Output.duration(.seconds(65)) == "1 min 5 s")
        #expect(Output.duration(.seconds(10_920)) == "3 h 2 min")
    }
}
