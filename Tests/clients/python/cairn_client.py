#!/usr/bin/python3
"""Commands on a Cairn server. Prints JSON; a failed call prints its error on standard error and exits with 1."""
import argparse
import json
import os
import sys
import zlib

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from google.protobuf import json_format  # noqa: E402

from cairnpy.connection import CallFailed, Connection  # noqa: E402
from cairnpy.data import identifier, seal, snapshot_name, token, volume_name  # noqa: E402
from cairnpy.messages import message_type  # noqa: E402

CALL_BYTES = 1 << 20
CALLS_AT_ONCE = 8
CRC32 = 2
PLAIN = 1


def show(**values):
    print(json.dumps(values))


def hello(connection, options):
    show(**json_format.MessageToDict(connection.peer, preserving_proto_field_name=True))


def create_volume(connection, options):
    request = message_type("CreateVolumeRequest")(
        size=options.size, chunk_size=options.chunk_size, kind=1, idempotency_key=os.urandom(16))
    first, _ = connection.call("CreateVolume", request)
    again, _ = connection.call("CreateVolume", request)
    if first != again:
        raise SystemExit("the same idempotency key gave two volumes")
    show(volume=volume_name(first.volume_id), initial_snapshot=snapshot_name(first.initial_snapshot_id),
         size=first.size, chunk_size=first.chunk_size, data_version=first.data_version)


def upload(connection, options):
    """Uploads a file, several calls in flight; its last sector is padded with zeros."""
    with open(options.file, "rb") as file:
        waiting, offset, tokens = [], options.offset, 0

        def take():
            response, _ = connection.wait(waiting.pop(0))
            return len(response.chunks)

        while data := file.read(CALL_BYTES):
            data += bytes(-len(data) % 512)
            request = message_type("UploadBlockRequest")(durability=1)
            request.target.volume_id = identifier(options.volume)
            block = request.blocks.add(offset=offset, length=len(data), codec=PLAIN, payload_length=len(data))
            block.checksum.algorithm, block.checksum.value = CRC32, zlib.crc32(data).to_bytes(4, "little")
            waiting.append(connection.submit("UploadBlock", request, data))
            offset += len(data)
            if len(waiting) == CALLS_AT_ONCE:
                tokens += take()
        while waiting:
            tokens += take()
    show(bytes=offset - options.offset, whole_chunks=tokens)


def download(connection, options):
    """Downloads a range into a file, each block checked."""
    counts = {"payload_length": 0, "hole": 0, "zeros": 0}
    with open(options.file, "wb") as file:
        for start in range(options.offset, options.offset + options.length, CALL_BYTES):
            length = min(CALL_BYTES, options.offset + options.length - start)
            request = message_type("DownloadBlockRequest")(checksum_algorithm=CRC32)
            target = identifier(options.source)
            if options.source.startswith("snap-"):
                request.target.snapshot_id = target
            else:
                request.target.volume_id = target
            request.ranges.add(offset=start, length=length)
            response, payload = connection.call("DownloadBlock", request)
            write_blocks(file, start, length, response, payload, counts)
    show(bytes=options.length, data=counts["payload_length"], holes=counts["hole"], zeros=counts["zeros"])


def write_blocks(file, start, length, response, payload, counts):
    position, used = start, 0
    for block in response.blocks:
        if block.offset != position:
            raise SystemExit(f"a gap: block at {block.offset} where {position} was due")
        content = block.WhichOneof("content")
        if content == "payload_length":
            data = payload[used:used + block.payload_length]
            used += block.payload_length
            if block.codec not in (0, PLAIN) or len(data) != block.length:
                raise SystemExit("a block that this client cannot take")
            if block.checksum.algorithm != CRC32 or zlib.crc32(data).to_bytes(4, "little") != block.checksum.value:
                raise SystemExit(f"the checksum of the block at {block.offset} is wrong")
        else:
            data = bytes(block.length)
        counts[content] += block.length
        file.write(data)
        position += block.length
    if position != start + length or used != len(payload):
        raise SystemExit("the blocks do not cover the range, or the payload is not all theirs")


def file_seal(connection, options):
    """The seal of a file's bytes: to compare with DescribeSnapshot's."""
    size, leaves = os.path.getsize(options.file), []
    with open(options.file, "rb") as file:
        while chunk := file.read(options.chunk_size):
            leaves.append(token(chunk, options.chunk_size))
    show(seal=seal(size, options.chunk_size, leaves).hex())


def call(connection, options):
    """Any method: the request and the response as protobuf's JSON."""
    request = json_format.Parse(options.request, message_type(options.method + "Request")())
    response, payload = connection.call(options.method, request, timeout_ms=options.timeout_ms)
    show(response=json_format.MessageToDict(response, preserving_proto_field_name=True), payload_bytes=len(payload))


def error(connection, options):
    """Makes calls that must fail, on one connection; prints how each did."""
    seen = {}

    def expect(name, method, request, payload=b""):
        try:
            connection.call(method, request, payload)
            seen[name] = "OK"
        except CallFailed as failure:
            seen[name] = f"{failure.status} {failure.reason}"

    target = message_type("Target")(volume_id=identifier(options.volume))
    expect("unknown volume", "DescribeVolume", message_type("DescribeVolumeRequest")(volume_id=bytes(16)))
    expect("volume size", "CreateVolume", message_type("CreateVolumeRequest")(size=1000))
    bad = message_type("UploadBlockRequest")(target=target)
    block = bad.blocks.add(offset=0, length=512, codec=PLAIN, payload_length=512)
    block.checksum.algorithm, block.checksum.value = CRC32, bytes(4)
    expect("checksum", "UploadBlock", bad, b"\x01" * 512)
    unaligned = message_type("UploadBlockRequest")(target=target)
    unaligned.blocks.add(offset=1, length=512, codec=PLAIN, payload_length=512)
    expect("offset", "UploadBlock", unaligned, bytes(512))
    tokens = message_type("UploadBlockRequest")(target=target)
    tokens.blocks.add(offset=0, length=options.chunk_size, token=b"\xff" * 32)
    expect("token", "UploadBlock", tokens)
    expect("after all that", "GetServerFacts", message_type("GetServerFactsRequest")())
    show(**seen)


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    for name, text in (("host", "the server's"), ("ca", "PEM"), ("cert", "PEM"), ("key", "PEM")):
        parser.add_argument(f"--{name}", required=True, help=text)
    parser.add_argument("--port", type=int, required=True)
    commands = parser.add_subparsers(required=True)

    def command(name, body, *arguments, **options):
        sub = commands.add_parser(name, help=body.__doc__)
        sub.set_defaults(body=body)
        for argument in arguments:
            sub.add_argument(argument)
        for option, default in options.items():
            sub.add_argument(f"--{option.replace('_', '-')}", type=int, default=default)

    command("hello", hello)
    command("create-volume", create_volume, size=1 << 20, chunk_size=65536)
    command("upload", upload, "volume", "file", offset=0)
    command("download", download, "source", "file", offset=0, length=1 << 20)
    command("seal", file_seal, "file", chunk_size=65536)
    command("call", call, "method", "request", timeout_ms=0)
    command("error", error, "volume", chunk_size=65536)
    return parser.parse_args()


def main():
    options = parse()
    try:
        connection = Connection(options.host, options.port, options.ca, options.cert, options.key)
        options.body(connection, options)
        connection.close()
    except CallFailed as failure:
        print(json.dumps({"status": failure.status, "reason": failure.reason, "text": failure.detail.text}), file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
