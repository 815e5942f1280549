import CairnClient
import CairnTransport
import Testing

@testable import CairnSettings
@testable import cairn

struct SettingsTests {
    func merge(flags: Settings = Settings(), environment: [String: String] = [:], file: String = "") throws
        -> Settings.Merged
    {
        try Settings.merge([
            flags, Settings(environment: environment), Settings(file: file, name: "config", home: "/home/me"),
        ])
    }

    @Test func theFileIsEnough() throws {
        let merged = try merge(
            file: """
                # whom to talk to
                server = store:7440
                  identity=~/pki/app

                timeout = 2m
                """
        )
        #expect(merged.server == "store:7440" && merged.timeout == "2m" && merged.connections == nil)
        #expect(merged.credentials == Credentials(identity: "/home/me/pki/app"))
        #expect(merged.credentials.certificate == "/home/me/pki/app.crt")
        #expect(merged.credentials.privateKey == "/home/me/pki/app.key")
        #expect(merged.credentials.authorities == "/home/me/pki/ca.crt")
    }

    @Test func theEnvironmentBeatsTheFileAndFlagsBeatBoth() throws {
        var flags = Settings()
        flags.server = "flag"
        let merged = try merge(
            flags: flags,
            environment: ["CAIRN_SERVER": "environment", "CAIRN_KEY": "k", "CAIRN_CA": ""],
            file: "server = file\nidentity = dir/name\n"
        )
        #expect(merged.server == "flag")
        #expect(
            merged.credentials == Credentials(certificate: "dir/name.crt", privateKey: "k", authorities: "dir/ca.crt")
        )
    }

    @Test("R2: counting may take half an hour; who sets a time-out gets that, and other commands the library's")
    func longCalls() throws {
        let long = try UsageCommand.parse([]).callLimit
        let said = "server = s\nidentity = i\n"
        #expect(try ConnectionOptions.clientOptions(merge(file: said), callLimit: long).callLimit == .seconds(1800))
        let limited = try merge(file: said + "timeout = 30s\n")
        #expect(try ConnectionOptions.clientOptions(limited, callLimit: long).callLimit == .seconds(30))
        let plain = try ConnectionOptions.clientOptions(merge(file: said), callLimit: StatusCommand.parse([]).callLimit)
        #expect(plain.callLimit == ClientOptions().callLimit)
    }

    @Test func anIdentityBeatsWeakerFiles() throws {
        var flags = Settings()
        flags.identity = "name"
        let merged = try merge(flags: flags, environment: ["CAIRN_SERVER": "s", "CAIRN_CERT": "other.crt"])
        #expect(
            merged.credentials == Credentials(certificate: "name.crt", privateKey: "name.key", authorities: "ca.crt")
        )
    }

    @Test(arguments: ["server", "server =", "sever = x", "server = a\nserver = b"])
    func aWrongLineIsNamed(text: String) {
        #expect { try Settings(file: text, name: "config", home: "/") } throws: {
            ($0 as? Settings.Problem)?.text.hasPrefix("config, line ") == true
        }
    }

    @Test func whatIsMissingIsSaid() {
        #expect(throws: Settings.Problem.self) { try merge(file: "identity = x") }
        #expect(throws: Settings.Problem.self) { try merge(file: "server = x\ncert = c\nkey = k") }
    }

    @Test func theFilesPlace() {
        #expect(Settings.filePath(environment: [:], home: "/h") == "/h/.config/cairn/config")
        #expect(Settings.filePath(environment: ["XDG_CONFIG_HOME": "/x"], home: "/h") == "/x/cairn/config")
        #expect(Settings.filePath(environment: ["XDG_CONFIG_HOME": "x"], home: "/h") == "/h/.config/cairn/config")
    }
}

struct ValueTests {
    @Test(arguments: [
        ("store:1", "store", 1), ("store", "store", 7440), ("[::1]:99", "::1", 99), ("[::1]", "::1", 7440),
        ("::1", "::1", 7440), ("10.0.0.1:65535", "10.0.0.1", 65535),
    ])
    func endpoints(text: String, host: String, port: UInt16) {
        #expect(Parsing.endpoint(text) == Endpoint(host: host, port: port))
    }

    @Test(arguments: ["", ":1", "a:", "a:0", "a:65536", "a:x", "[::1", "[::1]x", "[]:1", "[::1]:"])
    func noEndpoints(text: String) { #expect(Parsing.endpoint(text) == nil) }

    @Test(arguments: [
        ("90", Duration.seconds(90)), ("1.5s", .milliseconds(1500)), ("2m", .seconds(120)), ("1h", .seconds(3600)),
        ("0.0001", .milliseconds(1)),
    ])
    func durations(text: String, duration: Duration) { #expect(Parsing.duration(text) == duration) }

    @Test(arguments: ["", "s", "0", "-1", "x", "25h", "nan", "inf", "1d"])
    func noDurations(text: String) { #expect(Parsing.duration(text) == nil) }

    @Test func tags() {
        #expect(TagArgument(argument: "a=b=c")?.value == "b=c")
        #expect(TagArgument(argument: "a=")?.value == "")
        #expect(TagArgument(argument: "=b") == nil && TagArgument(argument: "a") == nil)
    }

    @Test func originsNeedTheirPrefix() {
        let uuid = "01234567-89ab-8def-8123-456789ab0001"
        #expect(OriginArgument(argument: "vol-" + uuid) != nil && OriginArgument(argument: "snap-" + uuid) != nil)
        #expect(OriginArgument(argument: uuid) == nil && OriginArgument(argument: "vol-" + uuid + "0") == nil)
    }
}
