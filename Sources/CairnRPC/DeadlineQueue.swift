internal import Collections

/// Which calls are due when. Calls that ended earlier are not searched for: they are passed over, and swept out when they
/// are most of the queue.
struct DeadlineQueue<ID: Hashable> {
    private struct Entry: Comparable {
        let deadline: UInt64
        let id: ID
        static func < (a: Entry, b: Entry) -> Bool { a.deadline < b.deadline }
        static func == (a: Entry, b: Entry) -> Bool { a.deadline == b.deadline }
    }
    private var heap = Heap<Entry>()

    /// The earliest deadline, maybe of a call that has ended.
    var next: UInt64? { heap.min?.deadline }
    var count: Int { heap.count }

    /// - Parameters:
    ///   - live: how many calls there are at all.
    ///   - isLive: whether a call has not ended.
    mutating func insert(_ id: ID, at deadline: UInt64, live: Int, isLive: (ID) -> Bool) {
        if heap.count > 64, heap.count > 2 * live {
            heap = Heap(heap.unordered.filter { isLive($0.id) })
        }
        heap.insert(Entry(deadline: deadline, id: id))
    }

    /// A call that is due at `now`; nil: none any more.
    mutating func pop(due now: UInt64) -> ID? {
        guard let first = heap.min, first.deadline <= now else { return nil }
        return heap.removeMin().id
    }
}
