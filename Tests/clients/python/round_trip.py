"""Creates a volume, uploads, downloads, snapshots, checks the seal, and makes mistakes. Prints OK.

Usage: round_trip.py HOST PORT CERTIFICATE KEY AUTHORITY, with the folder of the generated messages in PYTHONPATH.
"""

import hashlib
import os
import struct
import sys
import time
import zlib

import cairn_client as cairn
from cairn_client import block, common, method, session, snapshot, volume

CHUNK = 4096
SIZE = 1 << 20


def token(chunk):
    return hashlib.sha256(chunk.ljust(CHUNK, b"\0")).digest()


def seal(data):
    """PROTOCOL.md, "The seal"."""
    values = [token(data[start : start + CHUNK]) for start in range(0, len(data), CHUNK)]
    level = 1
    while len(values) > 1:
        values = [
            hashlib.sha256(b"cairn-seal-node-1" + bytes([level]) + b"".join(values[start : start + 256])).digest()
            for start in range(0, len(values), 256)
        ]
        level += 1
    return hashlib.sha256(b"cairn-seal-1" + struct.pack("<QI", len(data), CHUNK) + values[0]).digest()


def plain(offset, data, algorithm=common.CHECKSUM_ALGORITHM_CRC32C):
    value = {
        common.CHECKSUM_ALGORITHM_CRC32C: lambda: struct.pack("<I", cairn.crc32c(data)),
        common.CHECKSUM_ALGORITHM_CRC32: lambda: struct.pack("<I", zlib.crc32(data)),
        common.CHECKSUM_ALGORITHM_MD5: lambda: hashlib.md5(data).digest(),
        common.CHECKSUM_ALGORITHM_SHA256: lambda: hashlib.sha256(data).digest(),
    }[algorithm]()
    return block.UploadBlock(
        offset=offset,
        length=len(data),
        checksum=common.Checksum(algorithm=algorithm, value=value),
        codec=common.CODEC_PLAIN,
        payload_length=len(data),
    )


def expect_failure(reason, status, block_index, body):
    try:
        body()
    except cairn.CallFailed as failed:
        assert failed.detail.reason == reason, failed
        assert failed.status == status, failed
        if block_index is not None:
            assert failed.detail.HasField("block_index") and failed.detail.block_index.value == block_index, failed
    else:
        raise AssertionError("the call was answered as if all were well")


def main():
    host, port, certificate, key, authority = sys.argv[1:]
    client = cairn.Client(host, int(port), certificate, key, authority)
    assert client.hello.server.max_blocks_per_call == 4096

    request = volume.CreateVolumeRequest(size=SIZE, chunk_size=CHUNK, idempotency_key=os.urandom(16))
    created, _ = client.call(method.METHOD_CREATE_VOLUME, request, volume.CreateVolumeResponse)
    again, _ = client.call(method.METHOD_CREATE_VOLUME, request, volume.CreateVolumeResponse)
    assert created == again and created.data_version == 2
    target = common.Target(volume_id=created.volume_id)

    def upload(blocks, payload=b""):
        request = block.UploadBlockRequest(target=target, durability=block.DURABILITY_DURABLE, blocks=blocks)
        return client.call(method.METHOD_UPLOAD_BLOCK, request, block.UploadBlockResponse, payload)[0]

    content = bytearray(SIZE)
    algorithms = [
        common.CHECKSUM_ALGORITHM_CRC32C,
        common.CHECKSUM_ALGORITHM_CRC32,
        common.CHECKSUM_ALGORITHM_MD5,
        common.CHECKSUM_ALGORITHM_SHA256,
    ]
    blocks, payload = [], b""
    for index, algorithm in enumerate(algorithms):
        data = os.urandom(CHUNK * (index + 1))
        offset = index * 10 * CHUNK
        blocks.append(plain(offset, data, algorithm))
        payload += data
        content[offset : offset + len(data)] = data
    written = upload(blocks, payload)
    assert [chunk.offset for chunk in written.chunks][:2] == [0, 10 * CHUNK]
    assert written.chunks[0].token == token(bytes(content[:CHUNK]))
    assert len(written.write_verifier) == 8

    part = os.urandom(512)
    upload([plain(512, part)], part)
    content[512:1024] = part
    upload([block.UploadBlock(offset=99 * CHUNK, length=CHUNK, token=token(bytes(content[10 * CHUNK : 11 * CHUNK])))])
    content[99 * CHUNK : 100 * CHUNK] = content[10 * CHUNK : 11 * CHUNK]
    upload([block.UploadBlock(offset=20 * CHUNK, length=CHUNK, zeros=block.Empty())])
    content[20 * CHUNK : 21 * CHUNK] = bytes(CHUNK)

    asked = [token(bytes(content[10 * CHUNK : 11 * CHUNK])), bytes(32)]
    request = block.QueryChunksRequest(tokens=asked, volume_id=created.volume_id)
    answer, _ = client.call(method.METHOD_QUERY_CHUNKS, request, block.QueryChunksResponse)
    assert answer.present == b"\x01", answer.present

    request = block.DownloadBlockRequest(target=target, ranges=[common.ByteRange(offset=0, length=SIZE)])
    answer, payload = client.call(method.METHOD_DOWNLOAD_BLOCK, request, block.DownloadBlockResponse)
    received, position = b"", 0
    for found in answer.blocks:
        assert found.offset == len(received)
        if found.WhichOneof("content") == "payload_length":
            data = payload[position : position + found.payload_length]
            position += found.payload_length
            assert struct.pack("<I", cairn.crc32c(data)) == found.checksum.value
            received += data
        else:
            received += bytes(found.length)
    assert received == bytes(content) and position == len(payload)

    request = snapshot.CreateSnapshotRequest(volume_id=created.volume_id)
    made, _ = client.call(method.METHOD_CREATE_SNAPSHOT, request, snapshot.CreateSnapshotResponse)
    for _ in range(200):
        request = snapshot.DescribeSnapshotRequest(snapshot_token=made.snapshot_token)
        shown, _ = client.call(method.METHOD_DESCRIBE_SNAPSHOT, request, snapshot.DescribeSnapshotResponse)
        if not shown.snapshot.seal.pending:
            break
        time.sleep(0.05)
    assert shown.snapshot.seal.value == seal(bytes(content))

    bad = plain(0, part)
    bad.checksum.value = bytes(4)
    good = plain(0, part)
    expect_failure(session.REASON_CHECKSUM_ERROR, 3, 1, lambda: upload([good, bad], part + part))
    expect_failure(session.REASON_INVALID_ARGUMENT, 3, 0, lambda: upload([plain(1, part)], part))
    missing = block.UploadBlock(offset=0, length=CHUNK, token=bytes(32))
    expect_failure(session.REASON_INVALID_CHUNK_TOKEN, 5, 0, lambda: upload([missing]))
    unknown = volume.DescribeVolumeRequest(volume_id=bytes(16))
    expect_failure(
        session.REASON_INVALID_VOLUME_ID,
        5,
        None,
        lambda: client.call(method.METHOD_DESCRIBE_VOLUME, unknown, volume.DescribeVolumeResponse),
    )
    expect_failure(session.REASON_UNKNOWN_METHOD, 12, None, lambda: client.call(4242, unknown, volume.DescribeVolumeResponse))
    # The connection has outlived all of it.
    request = volume.DeleteVolumeRequest(volume_id=created.volume_id)
    client.call(method.METHOD_DELETE_VOLUME, request, volume.DeleteVolumeResponse)
    client.close()
    print("OK")


main()
