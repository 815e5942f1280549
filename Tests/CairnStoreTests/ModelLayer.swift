import CairnCore

@testable import CairnStore

/// What one snapshot or volume wrote, over what shows through from below: plain arrays, no sharing, so that what SPEC V5, S3 and S4
/// ask for can be read off.
final class ModelLayer {
    /// How a chunk was last written as a whole.
    enum Kind { case inherit, hole, zeros, data }

    private static let inherit = UInt32.max

    /// What shows through: of a snapshot in progress the one before it, of a clone its source.
    var below: ModelLayer?
    let chunkSize: ChunkSize
    private(set) var count: Int
    private var own: [UInt32]
    private var kinds: [Kind]
    private var hasParts: [Bool]
    /// Whether it takes data.
    var isPending = false
    /// What it held when nothing could change it any more: kept, for it must never change again (SPEC S6).
    private var final: [UInt32]?

    init(sectors count: Int, over below: ModelLayer?, _ chunkSize: ChunkSize) {
        (self.count, self.below, self.chunkSize) = (count, below, chunkSize)
        own = Array(repeating: Self.inherit, count: count)
        let chunks = Int(chunkSize.count(for: UInt64(count) * 512))
        kinds = Array(repeating: .inherit, count: chunks)
        hasParts = Array(repeating: false, count: chunks)
    }

    /// As it is now, for good: a snapshot of a volume whose primary copy is here (SPEC S2).
    func copy() -> ModelLayer {
        let copy = ModelLayer(sectors: count, over: below, chunkSize)
        (copy.own, copy.kinds, copy.hasParts) = (own, kinds, hasParts)
        return copy
    }

    /// Whether nothing below takes data.
    var isSettled: Bool {
        if isPending { return false }
        return below?.isSettled ?? true
    }

    /// To be called for what takes no writes any more, as soon as it is settled.
    func finish() { if final == nil, isSettled { final = sectors } }

    var sectors: [UInt32] {
        if let final { return final }
        var shown = [UInt32](repeating: 0, count: count)
        if let below { shown.replaceSubrange(0..<min(count, below.count), with: below.sectors.prefix(count)) }
        for index in 0..<count where own[index] != Self.inherit { shown[index] = own[index] }
        return shown
    }

    var content: ModelContent { ModelContent(sectors: sectors, chunkSize: chunkSize) }
    var chunks: Int { kinds.count }

    func grow(by more: Int) {
        count += more
        own += Array(repeating: Self.inherit, count: more)
        let added = Int(chunkSize.count(for: UInt64(count) * 512)) - kinds.count
        kinds += Array(repeating: .inherit, count: added)
        hasParts += Array(repeating: false, count: added)
    }

    func write(_ stamps: ArraySlice<UInt32>, at sectors: Range<Int>) {
        own.replaceSubrange(sectors, with: stamps)
        hasParts[sectors.lowerBound * 512 / chunkSize.bytes] = true
    }

    func write(_ stamps: ArraySlice<UInt32>, chunk: Int, _ kind: Kind) {
        let first = chunk * chunkSize.bytes / 512
        own.replaceSubrange(first..<first + stamps.count, with: stamps)
        kinds[chunk] = kind
        hasParts[chunk] = false
    }

    /// The states that may be told of a chunk; `content` is what the layer shows.
    func states(of chunk: Int, _ content: ModelContent) -> [BlockEntry.State] {
        var layer: ModelLayer? = self
        var isMixed = false
        while let place = layer, chunk < place.kinds.count {
            if place.hasParts[chunk] { isMixed = true }
            if place.kinds[chunk] != .inherit { break }
            layer = place.below
        }
        var kind = Kind.hole
        if let layer, chunk < layer.kinds.count { kind = layer.kinds[chunk] }
        let isZero = content.isZero(chunk)
        // Parts wait to be merged, or were.
        if isMixed { return [.data(nil), isZero ? .zeros : .data(content.fingerprint(of: chunk))] }
        switch kind {
        case .zeros: return [.zeros]
        case .data: return [.data(content.fingerprint(of: chunk))]
        case .hole, .inherit: return [.hole]
        }
    }
}
