import CairnCore
import CairnWire

/// The rules of tags, descriptions and keys that callers make up.
enum TagRules {
    /// Throws INVALID_ARGUMENT naming what is wrong; gives the tags by key.
    static func check(_ tags: [Wire.Tag]) throws(ServiceError) -> [String: String] {
        guard tags.count <= Limits.tags else {
            throw ServiceError(.invalidArgument, "\(tags.count) tags; at most \(Limits.tags) are kept")
        }
        var checked: [String: String] = [:]
        for tag in tags {
            guard (1...Limits.tagBytes).contains(tag.key.utf8.count), tag.value.utf8.count <= Limits.tagBytes else {
                throw ServiceError(
                    .invalidArgument,
                    "tag `\(tag.key.prefix(32))`: a key has 1–256 bytes, a value at most 256"
                )
            }
            guard checked.updateValue(tag.value, forKey: tag.key) == nil else {
                throw ServiceError(.invalidArgument, "tag `\(tag.key.prefix(32))` is given twice")
            }
        }
        return checked
    }

    static func check(description: String) throws(ServiceError) {
        guard description.utf8.count <= Limits.descriptionBytes else {
            throw ServiceError(.invalidArgument, "a description has at most \(Limits.descriptionBytes) bytes")
        }
    }

    static func check(idempotencyKey key: [UInt8]) throws(ServiceError) {
        guard key.count <= Limits.idempotencyKeyBytes else {
            throw ServiceError(
                .invalidArgument,
                "an idempotency key has 1–\(Limits.idempotencyKeyBytes) bytes, not \(key.count)"
            )
        }
    }

    /// Whether `tags` holds all of `wanted`: a listing's filter.
    static func matches(_ tags: [String: String], _ wanted: [Wire.Tag]) -> Bool {
        wanted.allSatisfy { tags[$0.key] == $0.value }
    }

    static func wire(_ tags: [String: String]) -> [Wire.Tag] {
        tags.isEmpty ? [] : tags.sorted { $0.key < $1.key }.map { Wire.Tag(key: $0.key, value: $0.value) }
    }
}
