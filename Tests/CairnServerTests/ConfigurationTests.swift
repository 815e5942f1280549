import CairnServer
import CairnStore
import Testing

@Suite struct ConfigurationTests {
    @Test("R3: the server's own limits are settings") func limits() throws {
        let text = """
            limit-volumes = 1
            limit-snapshots = 2
            limit-logical-bytes = 3GiB
            limit-stored-bytes = 4MiB
            limit-requests-per-second = 5
            limit-bytes-in-flight = 6KiB
            """
        var limits = AccountLimits()
        (limits.volumes, limits.snapshots, limits.logicalBytes) = (1, 2, 3 << 30)
        (limits.storedBytes, limits.requestsPerSecond, limits.bytesInFlight) = (4 << 20, 5, 6 << 10)
        #expect(try Configuration(text: text, file: "f").accountLimits == limits)
        #expect(Configuration().accountLimits == AccountLimits())
        for wrong in ["limit-volumes = -1", "limit-volumes = many", "limit-stored-bytes = 1.5.2"] {
            let error = #expect(throws: ConfigurationError.self) { try Configuration(text: wrong, file: "f") }
            #expect(error?.description.contains("f, line 1") == true)
        }
    }

    @Test("S11, A1: an idle snapshot has 72 hours, a promise is for 15 minutes, unless the settings say otherwise")
    func times() throws {
        #expect(Configuration().snapshotIdleSeconds == 72 * 3600 && Configuration().leaseSeconds == 15 * 60)
        let changed = try Configuration(text: "snapshot-idle-seconds = 60\nlease-seconds = 1800", file: "f")
        #expect(changed.snapshotIdleSeconds == 60 && changed.leaseSeconds == 1800)
        for wrong in ["snapshot-idle-seconds = 0", "lease-seconds = 0", "lease-seconds = 31d"] {
            #expect(throws: ConfigurationError.self) { try Configuration(text: wrong, file: "f") }
        }
    }

    @Test("R3: what may be under way is a setting: a size, or a part of the memory") func bytesInFlight() throws {
        #expect(try Configuration(text: "bytes-in-flight = 1GiB", file: "f").bytesInFlight == 1 << 30)
        #expect(try Configuration(text: "bytes-in-flight = auto", file: "f").bytesInFlight == nil)
        #expect(Configuration().bytesInFlight == nil)
        // Less than a request and an answer for which one account's half has room.
        #expect(throws: ConfigurationError.self) { try Configuration(text: "bytes-in-flight = 64MiB", file: "f") }
    }
}
