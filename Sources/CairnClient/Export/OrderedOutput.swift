internal import Synchronization

/// Hands finished pieces on in the order of their offsets, one at a time, on whichever thread brings the one that is next.
final class OrderedOutput: Sendable {
    fileprivate struct State {
        var next: UInt64 = 0
        var waiting: [UInt64: ExportPiece] = [:]
        var isWriting = false
    }
    private let state = Mutex(State())

    /// Takes a piece, and writes it and those that follow, unless another thread is writing, which then does.
    func hand(_ piece: ExportPiece, write: (ExportPiece) -> Void) {
        var ready = state.withLock { state -> ExportPiece? in
            state.waiting[piece.span.lowerBound] = piece
            return state.takeNext()
        }
        while let piece = ready {
            write(piece)
            ready = state.withLock { state in
                state.isWriting = false
                state.next = piece.span.upperBound
                return state.takeNext()
            }
        }
    }
}

extension OrderedOutput.State {
    fileprivate mutating func takeNext() -> ExportPiece? {
        guard !isWriting, let piece = waiting.removeValue(forKey: next) else { return nil }
        isWriting = true
        return piece
    }
}
