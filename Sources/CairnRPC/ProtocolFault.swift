internal import CairnWire

/// How a peer broke the protocol: the connection ends with a GOAWAY that says so.
enum ProtocolFault: Error, Equatable, CustomStringConvertible {
    case frame(FrameError)
    /// Something else than one HELLO came first.
    case expectedHello
    case unreadableHello
    /// A second HELLO, or the client's calls before the server's HELLO.
    case outOfTurn(FrameKind)
    case callIDNotRising(UInt64)
    /// An answer to no call of ours.
    case unknownCall(UInt64)
    /// More credited bytes than were granted.
    case credit(outstanding: Int, granted: Int)
    /// More credit given back than was taken.
    case creditReturned(UInt32)
    /// An answer names another method than its call.
    case wrongMethod(UInt32)

    var description: String {
        switch self {
        case .frame(let error): "\(error)"
        case .expectedHello: "the first frame is no HELLO"
        case .unreadableHello: "HELLO cannot be read, or its limits cannot be used"
        case .outOfTurn(let kind): "\(kind) out of turn"
        case .callIDNotRising(let id): "call id \(id) does not rise"
        case .unknownCall(let id): "answer to call \(id), which is not in flight"
        case .credit(let outstanding, let granted): "\(outstanding) bytes outstanding where \(granted) were granted"
        case .creditReturned(let bytes): "\(bytes) bytes of credit returned that were never taken"
        case .wrongMethod(let method): "answer with method \(method)"
        }
    }
}

/// A REQUEST's cost in credit: its body, unless it is small enough to ride on the reserve.
func creditCost(of header: FrameHeader) -> Int {
    header.bodyBytes > reserveBodyBytes || header.payloadBytes > 0 ? header.bodyBytes : 0
}

/// The largest REQUEST body without payload that needs no credit: bounded by the calls in flight instead.
let reserveBodyBytes = 4096
