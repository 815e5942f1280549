import CairnCore
import CairnStore
import CairnWire
import Testing

@testable import CairnService

@Suite struct LabelTests {
    private func update(
        _ harness: ServiceHarness,
        _ target: Wire.Target.Target,
        set: [String: String] = [:],
        remove: [String] = [],
        as context: CallContext = ServiceHarness.alice
    ) throws -> [String: String] {
        let request = Wire.UpdateTagsRequest(
            target: Wire.Target(target: target),
            set: set.map { Wire.Tag(key: $0.key, value: $0.value) },
            remove: remove
        )
        let tags = try harness.call(harness.service.updateTags, request, as: context).tags
        return Dictionary(uniqueKeysWithValues: tags.map { ($0.key, $0.value) })
    }

    @Test("R1, C2: tags of volumes and snapshots are set and removed; the rest stays; other accounts see neither")
    func tags() throws {
        let harness = try ServiceHarness()
        let request = Wire.CreateVolumeRequest(tags: [Wire.Tag(key: "a", value: "1"), Wire.Tag(key: "b", value: "2")])
        let volume = try harness.createVolume(request)
        let target = Wire.Target.Target.volumeID(volume.volumeID)
        #expect(
            try update(harness, target, set: ["c": "3", "a": "4"], remove: ["b", "none"]) == ["a": "4", "c": "3"]
        )
        let described = try harness.call(harness.service.describeVolume, .init(volumeID: volume.volumeID)).volume
        #expect(described?.tags == [Wire.Tag(key: "a", value: "4"), Wire.Tag(key: "c", value: "3")])
        #expect(try update(harness, .snapshotID(volume.initialSnapshotID), set: ["x": ""]) == ["x": ""])
        let many = Dictionary(uniqueKeysWithValues: (0..<63).map { ("k\($0)", "") })
        let full = #expect(throws: ServiceError.self) { try update(harness, target, set: many) }
        #expect(full?.code == .invalidArgument)
        #expect(try update(harness, target, set: many, remove: ["c"]).count == 64)
        let both = #expect(throws: ServiceError.self) { try update(harness, target, set: ["a": ""], remove: ["a"]) }
        #expect(both?.code == .invalidArgument)
        let foreign = #expect(throws: ServiceError.self) {
            try update(harness, target, set: ["a": ""], as: ServiceHarness.bob)
        }
        #expect(foreign == .noSuchVolume)
    }

    @Test("R5: who attaches a volume fences out those before: uploads, WriteZeroes, Discard; unfenced writes go on")
    func attachments() throws {
        let harness = try ServiceHarness()
        let volume = try harness.createVolume().volumeID
        func attach() throws -> UInt64 {
            try harness.call(harness.service.attachVolume, .init(volumeID: volume)).generation
        }
        func failures(_ attachment: UInt64) -> [ServiceError.Code?] {
            let target = Wire.Target(target: .volumeID(volume))
            let bytes = noise(512, seed: attachment + 1)
            var upload = Wire.UploadBlockRequest(target: target, attachment: attachment)
            upload.blocks = [ServiceHarness.block(bytes, at: 0)]
            let ranges = [Wire.ByteRange(offset: 65536, length: 65536)]
            func code(_ body: () throws -> Void) -> ServiceError.Code? {
                do { try body() } catch { return (error as? ServiceError)?.code }
                return nil
            }
            return [
                code { _ = try harness.upload(upload, payload: bytes) },
                code {
                    let request = Wire.WriteZeroesRequest(target: target, ranges: ranges, attachment: attachment)
                    _ = try harness.call(harness.service.writeZeroes, request)
                },
                code {
                    let request = Wire.DiscardRequest(target: target, ranges: ranges, attachment: attachment)
                    _ = try harness.call(harness.service.discard, request)
                },
            ]
        }
        #expect(failures(1) == [.invalidArgument, .invalidArgument, .invalidArgument])
        #expect(try attach() == 1)
        #expect(failures(1) == [nil, nil, nil])
        #expect(try attach() == 2)
        let kept = noise(512, seed: 2)
        #expect(failures(1) == [.staleAttachment, .staleAttachment, .staleAttachment])
        #expect(try harness.read(.volumeID(volume), 0, 512) == kept)
        #expect(failures(2) == [nil, nil, nil] && failures(0) == [nil, nil, nil])
        let described = try harness.call(harness.service.describeVolume, .init(volumeID: volume)).volume
        #expect(described?.attachmentGeneration == 2)
        let local = try harness.createVolume(Wire.CreateVolumeRequest(kind: .local)).volumeID
        let wrong = #expect(throws: ServiceError.self) {
            try harness.call(harness.service.attachVolume, .init(volumeID: local))
        }
        #expect(wrong?.code == .wrongVolumeKind)
        let foreign = #expect(throws: ServiceError.self) {
            try harness.call(harness.service.attachVolume, .init(volumeID: volume), as: ServiceHarness.bob)
        }
        #expect(foreign == .noSuchVolume)
    }
}
