import ArgumentParser
import CairnCore
import Foundation

/// Which volumes have how many chunks: lines `VOLUME CHUNKS`.
enum Plan {
    /// Those behind a volume's rows that are really there.
    static let realChunks: UInt64 = 1024

    static func read(_ path: String) throws -> [(volume: VolumeID, chunks: UInt64)] {
        try String(contentsOfFile: path, encoding: .utf8).split(separator: "\n").map { line in
            let words = line.split(separator: " ")
            guard words.count == 2, let volume = VolumeID(text: String(words[0])), let chunks = UInt64(words[1]),
                chunks > 0
            else {
                throw ValidationError("\(path): `\(line)` is no volume and its chunks")
            }
            return (volume, chunks)
        }
    }
}

/// What a process and its threads have used of the processors.
enum ProcessTime {
    /// Of the threads that there are: to the nanosecond, where /proc/PID/stat counts hundredths of a second.
    static func nanoseconds(of process: Int32) throws -> UInt64 {
        let folder = "/proc/\(process)/task"
        return try FileManager.default.contentsOfDirectory(atPath: folder).reduce(0) { sum, thread in
            // One that ends meanwhile has no file any more.
            let text = (try? String(contentsOfFile: "\(folder)/\(thread)/schedstat", encoding: .utf8)) ?? ""
            return sum + (text.split(separator: " ").first.flatMap { UInt64($0) } ?? 0)
        }
    }
}

enum Console {
    static func say(_ text: String) { FileHandle.standardError.write(Data((text + "\n").utf8)) }
}
