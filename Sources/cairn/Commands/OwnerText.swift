import CairnClient
import CairnCore

/// How much of a snapshot is whose, and what that means for an export (SPEC D5), in words.
enum OwnerText {
    static func text(_ snapshot: Snapshot) -> String {
        guard snapshot.state == .complete else { return "owners are told of a complete snapshot" }
        guard !snapshot.owners.isEmpty else {
            return snapshot.seal == .pending
                ? "the owners are not counted yet: --wait-seal waits for that"
                : "no owners: it holds no data, or it belongs to another account"
        }
        let rows = snapshot.owners.map { share in
            [
                share.account, ByteCount.text(share.bytes), percent(share.bytes, of: snapshot.owners),
                share.isExportable ? "yes" : "no",
            ]
        }
        return ([Output.table(["OWNER", "BYTES", "SHARE", "EXPORT"], rows)] + [refusal(snapshot)].compactMap { $0 })
            .joined(separator: "\n")
    }

    /// Why an export is refused; nil: it is not.
    static func refusal(_ snapshot: Snapshot) -> String? {
        let missing = snapshot.owners.filter { !$0.isExportable }
        guard !missing.isEmpty else { return nil }
        let names = missing.map(\.account).joined(separator: ", ")
        let bytes = ByteCount.text(missing.reduce(0) { $0 + $1.bytes })
        return """
            An export is refused: \(bytes) belong to \(names), and EXPORT was not granted. They can do so with
              cairn grant create export … --to \(snapshot.account)
            """
    }

    private static func percent(_ bytes: UInt64, of all: [OwnerShare]) -> String {
        let sum = all.reduce(0) { $0 + $1.bytes }
        guard sum > 0 else { return "0 %" }
        let tenths = Int((Double(bytes) / Double(sum) * 1000).rounded())
        return "\(tenths / 10).\(tenths % 10) %"
    }
}
