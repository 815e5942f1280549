internal import CairnCore
internal import CairnWire

extension PieceRunner {
    /// A call that was answered.
    struct Exchange<Message: WireRequest>: Sendable {
        let answer: Message.Response
        let payload: BufferSlice?
        /// Bytes on the wire each way: message, payload, frame header.
        let sent: UInt64
        let received: UInt64
    }

    private static var frameHeaderBytes: Int { 32 }

    /// Makes a typed call of this run. An error, of the call or thrown by `answered`, ends the run unless `recover` takes it.
    /// Both are called on the connection's loop, and not once the run has ended.
    func send<Message: WireRequest>(
        _ request: Message,
        payload: [BufferSlice] = [],
        over caller: any Caller,
        recover: @escaping @Sendable (ClientError) -> Bool = { _ in false },
        answered: @escaping @Sendable (Exchange<Message>) throws(ClientError) -> Void
    ) {
        let message = request.encode()
        let sent = UInt64(message.count + payload.reduce(0) { $0 + $1.count } + PieceRunner.frameHeaderBytes)
        let call = OutgoingCall(method: UInt32(Message.method.rawValue), message: message, payload: payload)
        self.call { counts in
            caller.start(call) { result in
                guard counts() else { return }
                do throws(ClientError) {
                    let raw = try result.get()
                    let received = raw.message.count + (raw.payload?.count ?? 0) + PieceRunner.frameHeaderBytes
                    let answer = try AnswerDecoding.decode(Message.self, raw).get()
                    try answered(
                        Exchange(answer: answer.0, payload: answer.1, sent: sent, received: UInt64(received))
                    )
                } catch {
                    if !recover(error) { self.fail(error) }
                }
            }
        }
    }
}
