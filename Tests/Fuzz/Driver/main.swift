import Glibc

/// Runs one target under libFuzzer: `FUZZ_TARGET=frame cairn-fuzz [libFuzzer's options] [folders of inputs]`.
/// Built by `tools/fuzz`, with coverage and AddressSanitizer, and with libFuzzer linked in.
private let target: FuzzTarget = {
    guard let name = getenv("FUZZ_TARGET").map({ String(cString: $0) }), let target = FuzzTarget(rawValue: name) else {
        fatalError("FUZZ_TARGET is one of " + FuzzTarget.allCases.map(\.rawValue).joined(separator: ", "))
    }
    return target
}()

private typealias Arguments = UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>

/// libFuzzer's own entry point, for programs that have a `main` (fuzzer_no_main).
@_silgen_name("LLVMFuzzerRunDriver")
private func runDriver(
    _ count: UnsafeMutablePointer<Int32>,
    _ arguments: UnsafeMutablePointer<Arguments>,
    _ body: @convention(c) (UnsafePointer<UInt8>?, Int) -> Int32
) -> Int32

_ = target
var count = CommandLine.argc
var arguments = CommandLine.unsafeArgv
exit(
    runDriver(&count, &arguments) { bytes, count in
        target.run(UnsafeRawBufferPointer(start: bytes, count: count))
        return 0
    }
)
