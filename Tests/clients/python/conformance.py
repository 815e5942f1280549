#!/usr/bin/python3
"""Runs proto/conformance on this client. Exits with 1 when a case fails."""
import json
import os
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from google.protobuf import json_format, message  # noqa: E402

from cairnpy.data import seal, token  # noqa: E402
from cairnpy.frames import FrameReader, ProtocolError  # noqa: E402
from cairnpy.messages import PROTO, message_type  # noqa: E402


def frame_case(case, file):
    data, expected = bytes.fromhex(case["receive"]), case["expect"]
    for size in (max(len(data), 1), 1):
        reader, frames, error = FrameReader(file["message_limit"], file["payload_limit"]), [], None
        try:
            for start in range(0, len(data), size):
                for frame in reader.feed(data[start:start + size]):
                    frames.append(frame)
        except ProtocolError as broken:
            error = broken.rule
        seen = [{key: value for key, value in describe(frame).items() if value} for frame in frames]
        assert seen == expected.get("frames", []), seen
        assert error == expected.get("error"), error
        assert error or bool(reader.buffer) == expected.get("incomplete", False)


def describe(frame):
    return dict(kind=frame.kind, method=frame.method, call_id=str(frame.call_id) if frame.call_id else "", value=frame.value,
                credit=frame.credit, message=frame.message.hex(), payload=frame.payload.hex())


def message_case(case, file):
    cls, data, expected = message_type(case["message"]), bytes.fromhex(case["bytes"]), case["expect"]
    if case.get("only") == "server":
        return
    try:
        read = cls.FromString(data)
    except message.DecodeError:
        assert "error" in expected, "refused"
        return
    assert "error" not in expected, "accepted"
    read.DiscardUnknownFields()
    assert json_format.MessageToDict(read, preserving_proto_field_name=True) == expected["value"]
    assert read.SerializeToString(deterministic=True).hex() == expected["encoding"]


def seal_case(case, file):
    size, chunk_size = case["size"], case["chunk_size"]
    leaves = [token(b"", chunk_size)] * -(-size // chunk_size)
    touched = {}
    for part in case["content"]:
        for offset in range(part["offset"], part["offset"] + part["length"], 512):
            chunk = touched.setdefault(offset // chunk_size, bytearray(chunk_size))
            chunk[offset % chunk_size:offset % chunk_size + 512] = bytes([part["byte"]]) * 512
    for index, chunk in touched.items():
        leaves[index] = token(bytes(chunk), chunk_size)
    assert seal(size, chunk_size, leaves).hex() == case["seal"]


def main():
    failures, count = 0, 0
    for name, run in (("frames", frame_case), ("messages", message_case), ("seals", seal_case)):
        file = json.loads((PROTO / "conformance" / f"{name}.json").read_text())
        for case in file["cases"]:
            count += 1
            try:
                run(case, file)
            except AssertionError as failure:
                failures += 1
                print(f"{case['number']} {case['name']}: {failure}", file=sys.stderr)
    print(f"{count} cases, {failures} failed")
    sys.exit(1 if failures else 0)


main()
