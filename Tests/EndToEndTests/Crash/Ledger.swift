import Foundation

/// What a writer did, line by line, synced: before each call is sent, and after its answer. It lies outside of the victim's
/// file system, and stays behind when a check fails.
///
/// The writers' own memory, which never dies here, is what the checks go by; this is the same for people.
// Safety: of one writer, which is an actor.
final class Ledger: @unchecked Sendable {
    let path: String
    private let descriptor: Int32

    init(_ name: String) throws {
        // Memory, where there is one: the tests' machine does not lose its power.
        let folder = FileManager.default.fileExists(atPath: "/dev/shm") ? "/dev/shm" : NSTemporaryDirectory()
        Self.removeOld(in: folder)
        path = "\(folder)/cairn-ledger-\(getpid())-\(name)-\(UInt32.random(in: .min ... .max))"
        descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND, 0o600)
        guard descriptor >= 0 else { throw HarnessError("\(path) cannot be made") }
    }

    deinit { close(descriptor) }

    func note(_ text: String) {
        let line = Array((text + "\n").utf8)
        _ = line.withUnsafeBytes { write(descriptor, $0.baseAddress!, $0.count) }
        _ = fdatasync(descriptor)
    }

    /// Those of failures, once they are a day old.
    private static func removeOld(in folder: String) {
        for name in (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
        where name.hasPrefix("cairn-ledger-") {
            var facts = stat()
            guard stat("\(folder)/\(name)", &facts) == 0, time(nil) - facts.st_mtim.tv_sec > 86400 else { continue }
            unlink("\(folder)/\(name)")
        }
    }

    /// When nothing was found.
    func remove() { unlink(path) }
}

/// Something acknowledged is lost, or something is there that nobody wrote.
struct Loss: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}
