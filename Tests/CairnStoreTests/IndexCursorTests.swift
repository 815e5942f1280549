import CairnTesting
import Foundation
import Testing

@testable import CairnStore

/// A cursor that steps on to what is near is where one that seeks would be.
@Suite struct IndexCursorTests {
    @Test("a walk finds what seeks find, in whatever order they come", arguments: [UInt64(1), 2, 3])
    func walks(seed: UInt64) throws {
        let folder = Torture.scratchFolder("index-cursor")
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let database = try IndexDatabase(path: folder, IndexDatabase.Options())
        defer { #expect(database.close(within: .seconds(60))) }
        var random = SeededRandom(seed: seed)
        let overlay = IndexOverlay(database)
        for number in 0..<200 where random.chance(60) { overlay.put(Self.key(number, random.below(3)), []) }
        try database.apply(overlay)
        try compare(database.makeView(), &random)
    }

    /// Of one length or another, so that some are the beginnings of others.
    private static func key(_ number: Int, _ more: Int) -> [UInt8] {
        [0x6d, UInt8(number / 16), UInt8(number % 16)] + Array(repeating: 0, count: more)
    }

    private func compare(_ view: IndexView, _ random: inout SeededRandom) throws {
        let (walk, plain) = (view.makeWalkCursor(), view.makeCursor())
        var place = 0
        for _ in 0..<20_000 {
            switch random.below(10) {
            case 0..<6:
                // Mostly on, by little.
                place = random.chance(95) ? min(199, place + random.below(4)) : random.below(200)
                let key = Self.key(place, random.below(4))
                walk.seek(key)
                plain.seek(key)
            case 6:
                let key = Self.key(random.below(200), random.below(4))
                walk.seekBack(key)
                plain.seekBack(key)
            default:
                guard try plain.isValid() else { continue }
                walk.next()
                plain.next()
            }
            let isValid = try plain.isValid()
            try #require(try walk.isValid() == isValid)
            if isValid { try #require(walk.key.elementsEqual(plain.key)) }
        }
    }
}
