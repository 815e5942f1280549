import CairnCore
import CairnRPC
import CairnService
import CairnWire

/// The calls of the operator's certificate, `cairn://admin` (SPEC C1, R3, R4): about accounts and the server, never about data.
extension Router {
    func serveOperator(_ call: IncomingCall, _ method: Wire.Method) {
        switch method {
        case .describeAccount:
            serve(call, \Wire.DescribeAccountRequest.account, service.describeAccount)
        case .setAccountLimits:
            serve(call, \Wire.SetAccountLimitsRequest.account, service.setAccountLimits)
        case .listAccounts:
            guard let request: Wire.ListAccountsRequest = decode(call) else { return }
            service.listAccounts(request) { call.end($0) }
        case .startScrub:
            guard let request: Wire.StartScrubRequest = decode(call) else { return }
            service.startScrub(request) { call.end($0) }
        case .getScrub:
            guard let request: Wire.GetScrubRequest = decode(call) else { return }
            service.getScrub(request) { call.end($0) }
        case .getMetrics: answer(call) { (_: Wire.GetMetricsRequest) in self.metrics() }
        default: call.fail(CallError(ServiceError(.permissionDenied, "\(method.name) takes an account's certificate")))
        }
    }

    /// A call about an account that it names.
    private func serve<Request: WireMessage, Response: WireMessage>(
        _ call: IncomingCall,
        _ name: KeyPath<Request, String>,
        _ body: Served<Request, Response>
    ) {
        guard let request: Request = decode(call) else { return }
        guard let account = AccountID(request[keyPath: name]) else {
            let text =
                request[keyPath: name].isEmpty
                ? "the call names no account" : "an account's name has 1 to 64 characters of a-z 0-9 . _ -"
            call.fail(CallError(ServiceError(.invalidArgument, text)))
            return
        }
        body(request, context(of: account, call)) { call.end($0) }
    }

    private func metrics() -> Wire.GetMetricsResponse {
        var text = MetricsText()
        parts.counters.write(to: &text)
        text.one(
            "cairn_bytes_in_flight",
            .gauge,
            "Bytes that requests and answers under way count for.",
            parts.throttle.bytesInFlight
        )
        text.write(service.metrics())
        return Wire.GetMetricsResponse(text: text.text)
    }
}
