internal import Dispatch

/// A loop on a serial queue.
// Safety: the sources are made in init, and Dispatch's own calls may come from any thread.
final class LoopQueue: LoopHost, @unchecked Sendable {
    private static let current = DispatchSpecificKey<ObjectIdentifier>()
    let sockets = SocketSet()
    private let queue: DispatchQueue
    private let source: any DispatchSourceRead
    private let timer: any DispatchSourceTimer

    init(name: String) {
        queue = DispatchQueue(label: name)
        source = DispatchSource.makeReadSource(fileDescriptor: sockets.descriptor, queue: queue)
        timer = DispatchSource.makeTimerSource(queue: queue)
        timer.schedule(deadline: .distantFuture)
        queue.setSpecific(key: LoopQueue.current, value: ObjectIdentifier(self))
        // The descriptor is closed when nobody looks at it any more.
        source.setCancelHandler { [sockets] in withExtendedLifetime(sockets) {} }
    }

    func start(_ loop: EventLoop) {
        source.setEventHandler { [weak self, weak loop] in
            guard let self, let loop else { return }
            sockets.wait(milliseconds: 0)
            takeTurn(loop)
        }
        timer.setEventHandler { [weak self, weak loop] in
            guard let self, let loop else { return }
            takeTurn(loop)
        }
        source.activate()
        timer.activate()
    }

    private func takeTurn(_ loop: EventLoop) {
        let next = loop.takeTurn()
        // There is more to do already: the loop is kept alive for that.
        if next == 0 { return wake(loop) }
        guard next != .max else { return }
        timer.schedule(deadline: DispatchTime(uptimeNanoseconds: next), leeway: .milliseconds(2))
    }

    var isCurrent: Bool { DispatchQueue.getSpecific(key: LoopQueue.current) == ObjectIdentifier(self) }

    func wake(_ loop: EventLoop) { queue.async { self.takeTurn(loop) } }

    func stop() {
        source.cancel()
        timer.cancel()
    }
}
