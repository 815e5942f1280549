"""Chunks, seals, identifiers: PROTOCOL.md, "Data"."""
import hashlib
import struct
import uuid


def token(chunk, chunk_size):
    """A chunk's token: SHA-256 over its bytes, zero-padded."""
    return hashlib.sha256(chunk + bytes(chunk_size - len(chunk))).digest()


def seal(size, chunk_size, leaves):
    """The seal of a snapshot whose chunks have the tokens `leaves`, in order."""
    level, values = 1, list(leaves)
    while len(values) > 1:
        values = [
            hashlib.sha256(b"cairn-seal-node-1" + bytes([level]) + b"".join(values[start:start + 256])).digest()
            for start in range(0, len(values), 256)
        ]
        level += 1
    return hashlib.sha256(b"cairn-seal-1" + struct.pack("<QI", size, chunk_size) + values[0]).digest()


def identifier(text):
    """`vol-…`, `snap-…` or a UUID -> 16 bytes."""
    for prefix in ("vol-", "snap-"):
        text = text.removeprefix(prefix)
    return uuid.UUID(text).bytes


def volume_name(volume_id):
    return f"vol-{uuid.UUID(bytes=volume_id)}"


def snapshot_name(snapshot_id):
    return f"snap-{uuid.UUID(bytes=snapshot_id)}"
