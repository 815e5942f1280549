import Foundation
import Synchronization

/// Folders that go with the process.
enum ScratchFolders {
    private static let folders = Mutex<[String]>([])

    static func removeAtExit(_ folder: String) {
        let isFirst = folders.withLock { folders in
            folders.append(folder)
            return folders.count == 1
        }
        guard isFirst else { return }
        atexit {
            for folder in ScratchFolders.folders.withLock({ $0 }) {
                try? FileManager.default.removeItem(atPath: folder)
            }
        }
    }
}
