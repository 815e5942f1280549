import CairnWire

@testable import CairnService

/// The calls that a run made, a line each: whose, what was asked for, and the answer's code. Two runs of one seed in one process have
/// the same lines.
///
/// IDs are others in each run: what a request is noted by has numbers for them, in the order in which they were told.
struct CallTrace {
    /// How much of a call is the seed's: not an answer that depends on what the background has done so far, or on how time passes, nor
    /// calls that are made only because of such an answer.
    enum Part: Int { case nothing, request, answer }

    var part = Part.answer
    private(set) var lines: [String] = []
    private var numbers: [[UInt8]: Int] = [:]

    mutating func takeLines() -> [String] {
        defer { lines = [] }
        return lines
    }

    mutating func note<Request: WireMessage, Response>(
        _ request: Request,
        _ context: CallContext,
        _ result: Result<Response, ServiceError>
    ) {
        if case .success(let answer) = result { learn(answer) }
        // Where a list goes on depends on how its entries are kept.
        let isContinued = (request as? any PagedRequest)?.page?.pageToken.isEmpty == false
        if part == .nothing || isContinued { return }
        let digest = UInt(bitPattern: numbered(request.encode()).hashValue)
        var line = "\(context.account)\(context.isHost ? "'s host" : ""): \(Request.messageName) \(digest)"
        if part == .answer {
            switch result {
            case .success: line += ": OK"
            case .failure(let error): line += ": \(error.code)"
            }
        }
        lines.append(line)
    }

    private mutating func learn(_ answer: Any) {
        switch answer {
        case let created as Wire.CreateVolumeResponse:
            number(created.volumeID)
            number(created.initialSnapshotID)
        case let created as Wire.CreateSnapshotResponse: number(created.snapshotID)
        case let created as Wire.CreateSnapshotsResponse:
            for snapshot in created.snapshots { number(snapshot.snapshotID) }
        default: break
        }
    }

    private mutating func number(_ id: [UInt8]) {
        if numbers[id] != nil { return }
        let number = numbers.count / 2 + 1
        numbers[id] = number
        numbers[ServiceModelRun.absent(id)] = -number
    }

    /// An encoding with the numbers of IDs in their place, and of snapshots' tokens.
    private func numbered(_ bytes: [UInt8]) -> [UInt8] {
        var (numbered, place): ([UInt8], Int) = ([], 0)
        while place < bytes.count {
            let length = bytes[place]
            numbered.append(length)
            place += 1
            // Each stands behind its length. A token is a version, the ID and a checksum.
            guard length == 16 || length == 21, place + Int(length) <= bytes.count else { continue }
            let start = length == 16 ? place : place + 1
            guard let number = numbers[Array(bytes[start..<start + 16])] else { continue }
            numbered += Array("\(number)".utf8)
            place += Int(length)
        }
        return numbered
    }
}

/// Asks for a page of a list.
private protocol PagedRequest {
    var page: Wire.PageRequest? { get }
}

extension Wire.ListVolumesRequest: PagedRequest {}
extension Wire.ListSnapshotsRequest: PagedRequest {}
extension Wire.ListGrantsRequest: PagedRequest {}
extension Wire.ListBlocksRequest: PagedRequest {}
extension Wire.ListChangedBlocksRequest: PagedRequest {}
