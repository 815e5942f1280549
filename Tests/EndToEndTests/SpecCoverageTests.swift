import Foundation
import Testing

/// `tools/spec-coverage` itself: it must not take for proof what is none.
struct SpecCoverageTests {
    private static let tool =
        URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().path + "/tools/spec-coverage"

    private struct Answer: Decodable {
        struct Line: Decodable {
            let number: String
            let proved: Bool
            let library: Bool
        }
        let missing: [String]
        let raw: [String]
        let problems: [String]
        let numbers: [Line]
    }

    /// What the tool says of a folder with these files.
    private func coverage(_ files: [String: String]) async throws -> (status: Int32, answer: Answer) {
        let folder = try WorkFolder()
        for (name, text) in files {
            let path = folder.file("Tests/" + name)
            try FileManager.default.createDirectory(
                atPath: (path as NSString).deletingLastPathComponent,
                withIntermediateDirectories: true
            )
            try Data(text.utf8).write(to: URL(fileURLWithPath: path))
        }
        let outcome = try await run(
            "/usr/bin/python3",
            [Self.tool, "--json", "--tests", folder.file("Tests")],
            limit: .seconds(60),
            in: folder
        )
        return (outcome.status, try JSONDecoder().decode(Answer.self, from: Data(outcome.output.utf8)))
    }

    @Test("Comments, strings, empty, disabled and skippable tests, and those of single targets, prove nothing")
    func noProof() async throws {
        let text = """
            // @Test("C1: in a comment") func a() { #expect(true) }
            /* @Test("C2: in a block") /* nested */ func b() { #expect(true) } */
            let text = "@Test(\\"C3: in a string\\") func c() { #expect(true) }"
            let raw = #"@Test("C4: in a raw string") func d() { #expect(true) }"#
            @Test("C5: empty") func e() {}
            @Test("C5: nothing but a comment") func e2() { /* #expect(true) */ }
            @Test("C6: disabled", .disabled("later")) func f() { #expect(true) }
            @Test("V1: skipped here and there", .enabled(if: isThere)) func g() { #expect(true) }
            @Test("It says V2: but not first") func h() { #expect(true) }
            """
        let (status, answer) = try await coverage([
            "EndToEndTests/A.swift": text,
            "CairnStoreTests/B.swift": "@Test(\"V3: of one target\") func a() { #expect(true) }",
            "clients/python/c.py": "# S1: a comment\ndef a():\n    'S2: does nothing'\n",
        ])
        #expect(status == 1)
        #expect(answer.numbers.filter(\.proved).map(\.number) == [])
        #expect(answer.missing.count == 51)
        #expect(answer.problems == [])
    }

    @Test("End-to-end tests and the other languages' prove what their names begin with; what does not exist is told")
    func proof() async throws {
        let text = """
            struct Suite {
                /// What \\"C2: …\\" says.
                @Test("C1, V10: both \\(1 + (2)) \\"quoted\\"", arguments: [1, 2], ["{", ")"])
                func a(_ one: Int, _ other: String = ("{")) async throws { #expect(true) /* } */ }
                @Test func `S1: its own name`() { #expect("}" != "{") }
                @Test("S12: there is none") func b() { #expect(true) }
                @Test("S2 and S3: cannot be read") func c() { #expect(true) }
            }
            """
        let (status, answer) = try await coverage([
            "EndToEndTests/A.swift": text, "clients/python/c.py": "def a():\n    '''U1: sends'''\n    send()\n",
        ])
        #expect(status == 1)
        #expect(answer.numbers.filter(\.proved).map(\.number) == ["C1", "V10", "S1", "U1"])
        #expect(answer.problems.count == 2)
        #expect(answer.problems.contains { $0.contains("S12") })
        #expect(answer.problems.contains { $0.contains("A.swift:7") })
        #expect(answer.raw == ["C1", "V10", "S1", "U1"])
    }

    @Test("Only tests in Library and of commands go through the library, and none there opens a connection of its own")
    func library() async throws {
        let (status, answer) = try await coverage([
            "EndToEndTests/Library/A.swift": "@Test(\"C1: a\") func a() { client.volume() }",
            "EndToEndTests/BCommandTests.swift": "@Test(\"C2: b\") func b() { connect(); cairn(\"b\") }",
            "EndToEndTests/C.swift": "@Test(\"C3: c\") func c() { client.volume() }",
            "EndToEndTests/Library/D.swift": "// connect()\n@Test(\"C4: d\") func d() {\n server.connect(account) }",
            "EndToEndTests/Library/E.swift": "@Test(\"C5: e\", .disabled(\"later\")) func e() { client.volume() }",
        ])
        #expect(status == 1)
        #expect(answer.numbers.filter(\.library).map(\.number) == ["C1", "C2", "C4"])
        #expect(answer.raw == ["C3"])
        #expect(answer.problems.count == 1 && answer.problems.allSatisfy { $0.contains("Library/D.swift:3") })
    }

    @Test("Every due line of this repository has its proofs")
    func repository() async throws {
        let outcome = try await run(
            "/usr/bin/python3",
            [Self.tool, "--missing"],
            limit: .seconds(60),
            in: try WorkFolder()
        )
        #expect(outcome.status == 0, "\(outcome.output)\(outcome.errors)")
    }
}
