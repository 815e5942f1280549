import CairnCore
import CairnCrypto
import Foundation

@testable import CairnStore

/// A commit record either is none, or is understood whole: then it is written again just as it was.
enum CommitTarget {
    private static let database: IndexDatabase = {
        let folder = NSTemporaryDirectory() + "cairn-fuzz-\(getpid())"
        ScratchFolders.removeAtExit(folder)
        // Nothing can be tried without one.
        return try! IndexDatabase(path: folder, IndexDatabase.Options())
    }()

    static func run(_ bytes: UnsafeRawBufferPointer) {
        let overlay = IndexOverlay(database)
        guard overlay.replay(bytes) else { return }
        precondition(overlay.encoded.elementsEqual(bytes), "a commit was understood otherwise than it was written")
        // What was put can be walked.
        let cursor = overlay.makeCursor()
        cursor.seek([])
        var count = 0
        while (try? cursor.isValid()) == true, count < 64 {
            RecordTarget.checkKey(cursor.key)
            cursor.next()
            count += 1
        }
    }
}
