import CairnCore
import CairnLog
import Glibc

/// Why a store, shard or transaction did not do what was asked.
public struct StoreError: Error, Sendable, Hashable, CustomStringConvertible {
    /// What programs switch on.
    public enum Code: Sendable, Hashable {
        /// There is no store in the folder, or what should be one cannot be read.
        case notAStore
        /// The folder is there already, and not empty.
        case exists
        /// Another server has it open.
        case locked
        /// A newer Cairn made it.
        case newerFormat
        /// What must be there is missing or fails its checksum; wrong bytes are never given out instead (SPEC D4).
        case damaged
        /// No space left: reads and deletes go on.
        case full
        /// The shard takes no changes since a write failed, until it is opened again.
        case fenced
        /// The operating system or RocksDB failed.
        case io
        /// A transaction's parameters name what is not there, or is too large for one commit.
        case invalid
        /// There are as many as there may be.
        case limited
        /// Another account's data, which it did not permit the caller to have (SPEC D5); the text names the accounts.
        case forbidden
        /// The transaction was given up by its own body.
        case aborted
        /// The store was closed.
        case closed
        /// It would have to be read from the disk, and this reader must not wait for that.
        case notInMemory
    }

    public let code: Code
    /// For people: names the place.
    public let text: String

    public init(_ code: Code, _ text: String) {
        self.code = code
        self.text = text
    }

    init(_ error: LogError) {
        switch error {
        case .full: self.init(.full, "the store is full")
        case .fenced: self.init(.fenced, "the shard's log takes no writes since one failed")
        case .damaged(let damage): self.init(.damaged, "the log is damaged: \(damage)")
        case .recycled(let location): self.init(.damaged, "\(location) was recycled")
        case .unsupportedFormat(let version): self.init(.newerFormat, "the log has format version \(version)")
        case .foreign(let identity):
            self.init(.damaged, "the log belongs to store \(identity.store.text), shard \(identity.shard)")
        case .groupTooLarge: self.init(.invalid, "the change is too large for one commit: send fewer blocks at once")
        case .io(let error): self.init(error.code == EAGAIN ? .notInMemory : .io, "\(error)")
        }
    }

    public var description: String { text }
}

/// Runs a call of the log, its errors turned into the store's.
func logCall<Value>(_ body: () throws(LogError) -> Value) throws(StoreError) -> Value {
    do throws(LogError) { return try body() } catch { throw StoreError(error) }
}
