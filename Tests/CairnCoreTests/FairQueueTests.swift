import CairnCore
import CairnTesting
import Testing

/// The same by its definition, without any thought of speed.
private struct PlainRoundRobin {
    struct Lane {
        let key: Int
        var items: [(Int, Int)]
        var credit = 0
    }
    let quantum: Int
    /// Who came anew, then who has had a turn, or came and went meanwhile.
    var fresh: [Lane] = []
    var lanes: [Lane] = []
    var isCredited = false
    var all: [Lane] { fresh + lanes }

    mutating func append(_ item: Int, of key: Int, cost: Int) {
        let cost = min(cost, quantum * FairQueue<Int, Int>.maximumTurns)
        if let index = fresh.firstIndex(where: { $0.key == key }) {
            fresh[index].items.append((item, cost))
        } else if let index = lanes.firstIndex(where: { $0.key == key }) {
            lanes[index].items.append((item, cost))
        } else {
            fresh.append(Lane(key: key, items: [(item, cost)], credit: quantum))
        }
    }

    mutating func charge(_ more: Int, to key: Int) {
        let more = min(more, quantum * FairQueue<Int, Int>.maximumTurns)
        for index in fresh.indices where fresh[index].key == key { fresh[index].credit -= more }
        for index in lanes.indices where lanes[index].key == key { lanes[index].credit -= more }
    }

    mutating func popFirst() -> Int? {
        guard all.contains(where: { !$0.items.isEmpty }) else { return nil }
        defer { if all.allSatisfy({ $0.items.isEmpty }) { (fresh, lanes, isCredited) = ([], [], false) } }
        while !fresh.isEmpty {
            if fresh[0].items[0].1 <= fresh[0].credit {
                let (item, cost) = fresh[0].items.removeFirst()
                fresh[0].credit -= cost
                if fresh[0].items.isEmpty {
                    fresh[0].credit = 0
                    lanes.append(fresh.removeFirst())
                }
                return item
            }
            lanes.append(fresh.removeFirst())
        }
        while true {
            if lanes[0].items.isEmpty {
                lanes.removeFirst()
                isCredited = false
                continue
            }
            if !isCredited { lanes[0].credit += quantum }
            isCredited = true
            if lanes[0].items[0].1 <= lanes[0].credit {
                let (item, cost) = lanes[0].items.removeFirst()
                lanes[0].credit -= cost
                if lanes[0].items.isEmpty {
                    lanes.removeFirst()
                    isCredited = false
                }
                return item
            }
            lanes.append(lanes.removeFirst())
            isCredited = false
        }
    }
}

@Suite struct FairQueueTests {
    @Test("R3: one key's items keep their order") func order() {
        var queue = FairQueue<String, Int>(quantum: 10)
        for item in 0..<100 { queue.append(item, of: "a", cost: 1 + item % 700) }
        var taken: [Int] = []
        while let first = queue.first() {
            #expect(queue.first() == first)
            #expect(queue.popFirst() == first)
            taken.append(first)
        }
        #expect(taken == Array(0..<100))
        #expect(queue.popFirst() == nil)
    }

    @Test("R3: a key with little to do does not wait for a key with thousands") func greedy() {
        var queue = FairQueue<String, String>(quantum: 4)
        for _ in 0..<10_000 { queue.append("greedy", of: "greedy", cost: 9) }
        for round in 0..<100 {
            // Whose turn it is may have been looked up already.
            #expect(queue.first() == "greedy")
            queue.append("small", of: "small", cost: 1)
            #expect(queue.popFirst() == "small", "round \(round)")
            for _ in 0..<3 { #expect(queue.popFirst() == "greedy") }
        }
    }

    @Test("R3: a key that comes back as soon as it is served does not keep the others waiting") func comingBack() {
        var queue = FairQueue<String, String>(quantum: 4)
        for _ in 0..<1000 { queue.append("patient", of: "patient", cost: 4) }
        var (patient, pushing) = (0, 0)
        while patient < 500 {
            if queue.keyCount < 2 { queue.append("pushing", of: "pushing", cost: 4) }
            if queue.popFirst() == "patient" { patient += 1 } else { pushing += 1 }
        }
        #expect(pushing <= 2 * patient + 2)
    }

    @Test("R3: keys get the same share of the cost, whatever their items cost") func shares() {
        var queue = FairQueue<Int, Int>(quantum: 64)
        let costs = [1, 7, 64, 500]
        for key in costs.indices {
            for _ in 0..<(200_000 / costs[key]) { queue.append(key, of: key, cost: costs[key]) }
        }
        var shares = [0, 0, 0, 0]
        // As long as each still has something waiting.
        while shares.max()! < 150_000, let key = queue.popFirst() { shares[key] += costs[key] }
        #expect(shares.max()! - shares.min()! <= 500 + 64)
    }

    @Test("R3: keys get the same share also where it is known only afterwards what an item cost")
    func sharesAfterwards() {
        var queue = FairQueue<Int, Int>(quantum: 64)
        let costs = [1, 7, 64, 500]
        for key in costs.indices {
            for _ in 0..<(200_000 / costs[key]) { queue.append(key, of: key, cost: 1) }
        }
        var shares = [0, 0, 0, 0]
        while shares.max()! < 150_000, let key = queue.popFirst() {
            shares[key] += costs[key]
            queue.charge(costs[key] - 1, to: key)
        }
        #expect(shares.max()! - shares.min()! <= 500 + 64)
    }

    @Test("R3: credit is not saved up by a key that has nothing waiting") func noSaving() {
        var queue = FairQueue<String, String>(quantum: 4)
        for _ in 0..<100 {
            queue.append("idle", of: "idle", cost: 1)
            _ = queue.popFirst()
        }
        for _ in 0..<100 { queue.append("idle", of: "idle", cost: 1) }
        for _ in 0..<100 { queue.append("other", of: "other", cost: 1) }
        let first = (0..<8).map { _ in queue.popFirst()! }
        #expect(first.count { $0 == "idle" } == 4)
    }

    @Test("R3: as the definition has it", arguments: 0..<20) func model(seed: UInt64) {
        var random = SeededRandom(seed: seed)
        let quantum = Int.random(in: 1...50, using: &random)
        var queue = FairQueue<Int, Int>(quantum: quantum)
        var model = PlainRoundRobin(quantum: quantum)
        var waiting = 0
        for item in 0..<3000 {
            if Int.random(in: 0..<(item < 1500 ? 3 : 5), using: &random) < 2 {
                let key = Int.random(in: 0..<7, using: &random)
                let cost = Int.random(in: 1...(Bool.random(using: &random) ? 5 : 5000), using: &random)
                queue.append(item, of: key, cost: cost)
                model.append(item, of: key, cost: cost)
                waiting += 1
            } else {
                let taken = queue.popFirst()
                #expect(taken == model.popFirst())
                if let taken {
                    waiting -= 1
                    // Any key may have to pay: also one that has nothing waiting.
                    let (more, key) = (Int.random(in: 1...500, using: &random), taken % 7)
                    queue.charge(more, to: key)
                    model.charge(more, to: key)
                }
            }
            #expect(queue.count == waiting)
            #expect(queue.keyCount == model.all.count { !$0.items.isEmpty })
        }
        let left = Set(queue.removeAll())
        #expect(left == Set(model.all.flatMap { $0.items.map(\.0) }))
        #expect(queue.isEmpty && queue.popFirst() == nil)
    }
}
