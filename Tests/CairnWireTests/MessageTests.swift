import CairnCore
import CairnWire
import Foundation
import Testing

struct MessageTests {
    /// What a message looks like is fixed: these bytes are written by hand from the contract.
    @Test func goldenBytes() throws {
        let create = Wire.CreateVolumeRequest(
            size: 1 << 20,
            kind: .remote,
            tags: [Wire.Tag(key: "os", value: "debian")],
            idempotencyKey: [1, 2]
        )
        try check(create, "08808040" + "2001" + "320c" + "0a026f73" + "120664656269616e" + "3a020102")
        let upload = Wire.UploadBlockRequest(
            target: Wire.Target(target: .volumeID([0xaa, 0xbb])),
            durability: .onFlush,
            blocks: [
                Wire.UploadBlock(
                    offset: 512,
                    length: 512,
                    checksum: .init(algorithm: .crc32c, value: [1, 2, 3, 4]),
                    codec: .plain,
                    source: .payloadLength(512)
                ),
                Wire.UploadBlock(offset: 1024, length: 512, source: .hole(Wire.Empty())),
            ]
        )
        try check(
            upload,
            "0a040a02aabb" + "2802" + "3215" + "088004" + "108004" + "1a080801120401020304" + "2001" + "288004"
                + "3208" + "088008" + "108004" + "4200"
        )
        let error = Wire.ErrorDetail(
            reason: .checksumError,
            text: "no",
            blockIndex: Wire.BlockIndex(value: 0),
            retryable: true,
            retryAfterMs: 300
        )
        try check(error, "0809" + "12026e6f" + "1a00" + "2001" + "28ac02")
    }

    private func check<Message: WireMessage>(_ message: Message, _ hex: String) throws {
        #expect(Hex.encode(message.encode()) == hex)
        #expect(try Message.decode(#require(Hex.decode(hex))) == message)
    }

    /// Skipped never: tools/setup installs protoc, protoc-c and python3-protobuf.
    @Test func generatedCodeIsFresh() throws {
        try expectSuccess("tools/generate-proto", "--check")
    }

    @Test func enumsKeepUnknownValuesAndTellNames() throws {
        let future = Wire.Checksum(algorithm: .init(rawValue: 77), value: [])
        #expect(try Wire.Checksum.decode(future.encode()).algorithm.rawValue == 77)
        #expect("\(Wire.ChecksumAlgorithm(rawValue: 77)) \(Wire.Codec.lz4)" == "77 LZ4")
        #expect(Wire.Method.uploadBlock.name == "UploadBlock")
        #expect(Wire.Method(rawValue: 77).name == "Method(77)")
        #expect(Wire.Method(header: .max) == nil)
        #expect(Wire.UploadBlockRequest.method == .uploadBlock && Wire.Method.uploadBlock.rawValue == 32)
    }

    @Test func everyReasonHasItsStatus() {
        for reason in Wire.Reason.allCases where reason != .unspecified {
            #expect(reason.status != .unknown && reason.status != .ok, "\(reason)")
        }
        #expect(Wire.Reason(rawValue: 500).status == .unknown)
        #expect(Status.allCases.map(\.rawValue) == Array(0...16))
    }

    @Test func callErrorsGoOverTheWire() {
        let error = CallError(.throttled, "slow down", blockIndex: 0, retryAfter: .microseconds(1500))
        #expect(error.status == .resourceExhausted && error.isRetryable && error.detail.retryAfterMs == 2)
        let read = CallError(status: error.status.rawValue, detail: error.detail.encode())
        #expect(read == CallError(.throttled, "slow down", blockIndex: 0, retryAfter: .milliseconds(2)))
        #expect("\(read)" == "THROTTLED (block 0): slow down")
    }

    @Test func aPeersErrorIsAnErrorWhateverItHolds() {
        for (status, detail): (UInt32, [UInt8]) in [(0, []), (17, []), (.max, [0xff]), (5, [0xff])] {
            let error = CallError(status: status, detail: detail)
            #expect(error.status == (status == 5 ? .notFound : .unknown))
            #expect(error.reason == .unspecified && !error.isRetryable && error.retryAfter == nil)
        }
        #expect(CallError(.throttled, retryAfter: .seconds(1 << 40)).detail.retryAfterMs == .max)
        #expect(CallError(.throttled, retryAfter: .seconds(-1)).detail.retryAfterMs == 0)
    }
}
