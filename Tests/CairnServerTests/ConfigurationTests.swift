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
}
