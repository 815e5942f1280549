public import DequeModule

/// What waits, in an order that is fair to keys: deficit round robin (Shreedhar and Varghese, SIGCOMM 1995), those first who ask for
/// little (RFC 8290).
///
/// Keys take turns. At its turn a key gets ``quantum`` of credit, and its items go, oldest first, as long as their costs are
/// paid by it; what is left is kept for its next turn, and lost when nothing of the key waits any more. So while several keys
/// wait each gets the same share of the cost, however many items it has. A key that comes anew goes before those that have had a
/// turn, for one quantum; coming back at once does not make it new: it is so again when each other has had its turn. One key's items
/// keep their order.
///
/// Each operation takes constant time, amortized: an item costs ``maximumTurns`` turns at the most. Memory is that of the items, and
/// of the keys that came and went within a turn. How many may wait is the callers' to bound (see `Router` in CairnServer).
public struct FairQueue<Key: Hashable, Item> {
    @usableFromInline struct Lane {
        @usableFromInline let key: Key
        @usableFromInline var items = Deque<(item: Item, cost: Int)>()
        @usableFromInline var credit: Int
        @inlinable init(key: Key, credit: Int) { (self.key, self.credit) = (key, credit) }
    }

    /// What a key may spend at its turn.
    public let quantum: Int
    /// Costs beyond so many quanta count as so many: this bounds the search for the next item.
    @inlinable public static var maximumTurns: Int { 64 }

    /// Lanes keep their places, so that a turn needs no look into the dictionary.
    @usableFromInline var lanes: [Lane?] = []
    @usableFromInline var freePlaces: [Int] = []
    @usableFromInline var places: [Key: Int] = [:]
    /// The lanes that came anew, with what is left of their first credit.
    @usableFromInline var fresh = Deque<Int>()
    /// The others in the order of their turns; also those that came and went, until their turn comes.
    @usableFromInline var turns = Deque<Int>()
    /// Whether the lane whose turn it is got its credit.
    @usableFromInline var isCredited = false
    @usableFromInline var total = 0
    @inlinable public var count: Int { total }

    @inlinable public init(quantum: Int) {
        precondition(quantum > 0)
        self.quantum = quantum
    }

    @inlinable public var isEmpty: Bool { count == 0 }
    /// Keys of which something waits. Looks at each.
    public var keyCount: Int { lanes.count { $0?.items.isEmpty == false } }

    /// - Parameter cost: at least 1.
    @inlinable public mutating func append(_ item: Item, of key: Key, cost: Int) {
        precondition(cost > 0)
        let place: Int
        if let known = places[key] {
            place = known
        } else {
            place = freePlaces.popLast() ?? lanes.count
            if place == lanes.count { lanes.append(nil) }
            lanes[place] = Lane(key: key, credit: quantum)
            places[key] = place
            fresh.append(place)
        }
        lanes[place]!.items.append((item, min(cost, quantum * Self.maximumTurns)))
        total += 1
    }

    /// The item whose turn it is; the same until something is added or removed.
    @inlinable public mutating func first() -> Item? {
        guard !isEmpty else { return nil }
        while let place = fresh.first {
            let next = lanes[place]!.items[0]
            if next.cost <= lanes[place]!.credit { return next.item }
            turns.append(fresh.removeFirst())
        }
        while true {
            let place = turns[0]
            guard let next = lanes[place]!.items.first else {
                forget(turns.removeFirst())
                isCredited = false
                continue
            }
            if !isCredited {
                lanes[place]!.credit += quantum
                isCredited = true
            }
            if next.cost <= lanes[place]!.credit { return next.item }
            turns.append(turns.removeFirst())
            isCredited = false
        }
    }

    /// Takes out what ``first()`` gives.
    @inlinable public mutating func popFirst() -> Item? {
        guard let item = first() else { return nil }
        let place = fresh.first ?? turns[0]
        let cost = lanes[place]!.items.removeFirst().cost
        lanes[place]!.credit -= cost
        total -= 1
        if lanes[place]!.items.isEmpty {
            if fresh.isEmpty {
                forget(turns.removeFirst())
                isCredited = false
            } else {
                lanes[place]!.credit = 0
                turns.append(fresh.removeFirst())
            }
        }
        if isEmpty { forgetAll() }
        return item
    }

    /// What an item that was taken out cost beyond what was said: its key pays for it with its next turns. Nothing where nobody else
    /// has waited since.
    @inlinable public mutating func charge(_ more: Int, to key: Key) {
        guard let place = places[key] else { return }
        lanes[place]!.credit -= min(more, quantum * Self.maximumTurns)
    }

    @usableFromInline mutating func forget(_ place: Int) {
        places[lanes[place]!.key] = nil
        lanes[place] = nil
        freePlaces.append(place)
    }

    /// Nobody waits: there are no turns.
    @usableFromInline mutating func forgetAll() {
        for place in turns { forget(place) }
        turns.removeAll(keepingCapacity: true)
        isCredited = false
    }

    /// Takes out everything, each key's in its order.
    @inlinable public mutating func removeAll() -> [Item] {
        let items = (fresh + turns).flatMap { lanes[$0]!.items.map(\.item) }
        self = FairQueue(quantum: quantum)
        return items
    }
}

extension FairQueue: Sendable where Key: Sendable, Item: Sendable {}
extension FairQueue.Lane: Sendable where Key: Sendable, Item: Sendable {}
