import Foundation
import Testing

@testable import CairnBench

#if canImport(FoundationXML)
    import FoundationXML
#endif

/// Says where XML is not well-formed, and collects what a reader of it meets.
private final class Reader: NSObject, XMLParserDelegate {
    var fault: String?
    var elements: [String: Int] = [:]
    var ids: [String] = []
    var labelled: [String] = []
    var links: [String] = []

    func parser(_: XMLParser, parseErrorOccurred error: any Error) { fault = fault ?? "\(error)" }

    func parser(
        _: XMLParser,
        didStartElement element: String,
        namespaceURI: String?,
        qualifiedName: String?,
        attributes: [String: String]
    ) {
        elements[element, default: 0] += 1
        if let id = attributes["id"] { ids.append(id) }
        if let label = attributes["aria-labelledby"] { labelled += label.split(separator: " ").map(String.init) }
        for name in ["src", "href"] { if let link = attributes[name] { links.append(link) } }
    }
}

struct ReportTests {
    private func page() -> String {
        var odd = Sample.run("a <b> & \"c\"", 1, rate: 500, p99: 90, intervals: [500, 510, 490])
        odd.histogramUs = []
        odd.latencyUs.count = 0
        let runs = (1...3).map {
            Sample.run("rand-upload 64KiB", $0, rate: 1000, p99: 2500, intervals: [900, 1000, 1100], bytes: 65_536_000)
        }
        return HTMLReport(Sample.file(runs + [odd])).page
    }

    @Test func theReportIsWellFormedAndSelfContained() {
        let reader = Reader()
        let parser = XMLParser(data: Data(page().utf8))
        parser.delegate = reader
        #expect(parser.parse() && reader.fault == nil, "\(reader.fault ?? "")")
        #expect(reader.links.isEmpty && reader.elements["script"] == nil && reader.elements["link"] == nil)
        #expect(!page().contains("@import") && !page().contains("url("))
    }

    @Test func everyPlotHasATextAndATable() {
        let reader = Reader()
        let parser = XMLParser(data: Data(page().utf8))
        parser.delegate = reader
        #expect(parser.parse())
        // Others are samples in legends, whose names stand beside them.
        let plots = page().matches(of: /role="img"/).count
        let samples = page().matches(of: /aria-hidden="true"/).count
        #expect(reader.elements["svg"] == plots + samples)
        #expect(plots == 5 && reader.elements["title"] == plots + 1 && reader.elements["desc"] == plots)
        #expect(reader.labelled.count == 2 * plots && Set(reader.labelled).isSubset(of: reader.ids))
        #expect(Set(reader.ids).count == reader.ids.count)
        #expect(reader.elements["table"] == plots + 1 && reader.elements["caption"] == plots + 1)
        #expect(page().contains("prefers-color-scheme: dark"))
    }

    @Test func nothingIsDrawnOutsideOfItsPlot() {
        for match in page().matches(of: /points="([^"]*)"/) {
            for point in match.1.split(separator: " ") {
                let parts = point.split(separator: ",").compactMap { Double($0) }
                #expect(parts.count == 2 && (0...860).contains(parts[0]) && (0...360).contains(parts[1]))
            }
        }
        #expect(!page().contains("nan") && !page().contains("inf,"))
    }

    @Test func anEmptyMeasurementHasAPage() {
        let parser = XMLParser(data: Data(HTMLReport(Sample.file([])).page.utf8))
        #expect(parser.parse())
    }

    @Test func filesReadAsTheyWereWritten() throws {
        let path = NSTemporaryDirectory() + "bench-\(UUID().uuidString).json"
        defer { try? FileManager.default.removeItem(atPath: path) }
        let file = Sample.file([Sample.run("w", 1, rate: 1000, p99: 2500, intervals: [900], bytes: 4096)])
        try file.write(to: path)
        let again = try BenchFile.read(path)
        #expect(BenchFile.json(again) == BenchFile.json(file))
        let text = try String(contentsOfFile: path, encoding: .utf8)
        // Names that others rely on.
        for name in [
            "schema", "created_at", "machine", "runs", "workload", "label", "repetition", "options", "pace",
            "connections",
            "in_flight", "seconds", "operations", "bytes", "operations_per_second", "bytes_per_second", "errors",
            "failed",
            "unstarted", "interrupted", "latency_us", "p50", "p99", "p999", "p9999", "kinds", "client_cpu_seconds",
            "server_cpu_seconds", "user", "system", "total", "intervals", "p50_us", "p99_us", "max_us", "histogram_us",
        ] { #expect(text.contains("\"\(name)\""), "\(name) is missing") }
        try Data("{\"schema\": 1}".utf8).write(to: URL(fileURLWithPath: path))
        #expect(throws: BenchError.self) { try BenchFile.read(path) }
    }

    @Test func theTableSaysWhatFailed() {
        var run = Sample.run("w", 1, rate: 1000, p99: 2500)
        run.errors = ["THROTTLED": 3, "TIMED_OUT": 7]
        run.failed = 10
        run.interrupted = true
        let text = ResultTable.text([run, Sample.run("w", 2, rate: 1000, p99: 2500)])
        #expect(text.contains("w #1: failed: TIMED_OUT 7, THROTTLED 3"))
        #expect(text.contains("w median") && text.contains("interrupted after 10.0 s") && text.contains("2.50 ms"))
    }
}
