import ArgumentParser
import CairnCore
import CairnServer

struct Init: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Make an empty store in a folder.",
        discussion:
            "The number of shards is fixed from then on. More shards use more cores; each deduplicates by itself."
    )

    @Option(help: "The store's folder; made if it is not there, refused if it is not empty.")
    var data: String

    @Option(help: "Shards, 1 to 256.")
    var shards = 4

    @Option(help: "The size of the log's segments, as in 64MiB; 32 MiB to 1 GiB.")
    var segmentSize = "64MiB"

    mutating func validate() throws {
        guard (1...256).contains(shards) else { throw ValidationError("--shards takes 1 to 256") }
        guard let bytes = ByteCount.parse(segmentSize), (32 << 20...1 << 30).contains(bytes),
            bytes.isMultiple(of: 1 << 20)
        else {
            throw ValidationError("--segment-size takes whole MiB from 32MiB to 1GiB")
        }
    }

    func run() throws {
        do {
            try Server.initialize(data: data, shards: shards, segmentSize: ByteCount.parse(segmentSize)!)
        } catch {
            throw Exit.failing("\(error)", Exit.cannotCreate)
        }
    }
}
