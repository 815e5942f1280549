#!/usr/bin/python3
"""Runs proto/conformance on this client. Exits with 1 when a case fails.

conformance.py [HOST PORT CERTIFICATE KEY CA]: with a server, its sessions (session.json) as well.
"""
import json
import os
import socket
import ssl
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from google.protobuf import json_format, message  # noqa: E402

from cairnpy.data import seal, token  # noqa: E402
from cairnpy.frames import HEADER, NUMBERS, STATUSES, FrameReader, ProtocolError  # noqa: E402
from cairnpy.messages import PROTO, message_type, method_number, reason_name  # noqa: E402

LIMIT_SECONDS = 20
CLOSING_PING = 0xC0FFEE


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


# Sessions: what a case writes, as bytes


def raw(value, kept):
    """Bytes: in hexadecimal, a text, one byte again and again, or what an earlier answer held."""
    if isinstance(value, str):
        return bytes.fromhex(value)
    if "text" in value:
        return value["text"].encode()
    if "kept" in value:
        return kept[value["kept"]]
    return bytes([value["byte"]]) * value["length"]


def encoded(value, kept):
    """A message: its fields by number, or bytes."""
    if isinstance(value, str) or not all(key.isdigit() for key in value):
        return raw(value, kept)
    return b"".join(
        field(number, one, kept) for number, given in sorted((int(key), given) for key, given in value.items())
        for one in repeated(given))


def repeated(value):
    if isinstance(value, dict) and "times" in value:
        return [value["of"]] * value["times"]
    return value if isinstance(value, list) else [value]


def field(number, value, kept):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    body = encoded(value, kept)
    return varint(number << 3 | 2) + varint(len(body)) + body


def varint(value):
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out + bytes([value]))


def number_of(method):
    return method_number(method) if isinstance(method, str) else method


class Session:
    """One connection to a server, on which one case runs. Every wait is limited."""

    def __init__(self, server, file):
        host, port, certificate, key, authority = server
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_verify_locations(authority)
        context.load_cert_chain(certificate, key)
        context.set_alpn_protocols(["cairn/1"])
        plain = socket.create_connection((host, int(port)), LIMIT_SECONDS)
        # An end without close_notify is an error.
        self.socket = context.wrap_socket(plain, server_hostname=host, suppress_ragged_eofs=False)
        self.file = file
        self.reader = FrameReader(file["server"]["max_message_bytes"], file["server"]["max_payload_bytes"])
        self.frames, self.kept, self.methods = [], {}, {}
        self.cost = self.returned = 0
        self.has_ended = False

    def encode(self, frame):
        if "bytes" in frame:
            return raw(frame["bytes"], self.kept)
        message, payload = encoded(frame.get("message", ""), self.kept), raw(frame.get("payload", ""), self.kept)
        kind, call, body = frame["kind"], int(frame.get("call_id", "0")), len(message) + len(payload)
        method = number_of(frame.get("method", 0))
        if kind == "request":
            self.methods[call] = method
            self.cost += body if payload or body > 4096 else 0
        return HEADER.pack(
            frame.get("body_length", body), frame.get("version", 1), NUMBERS.get(kind, kind), frame.get("flags", 0), method,
            frame.get("message_length", len(message)), call, frame.get("value", 0), frame.get("credit", 0)) + message + payload

    def receive(self):
        """Takes what comes next; CREDIT frames are only counted."""
        data = self.socket.recv(256 << 10)
        self.has_ended = not data
        for frame in self.reader.feed(data):
            self.returned += frame.credit
            assert self.returned <= self.cost, f"{self.returned} bytes of credit given back, {self.cost} taken"
            if frame.kind != "credit":
                self.frames.append(frame)

    def step(self, step):
        self.socket.sendall(b"".join(self.encode(frame) for frame in step["send"]))
        expected = step["receive"]
        ends = step.get("ends", False) or any(one["kind"] == "goaway" for one in expected)
        while not self.has_ended and (ends or len(self.frames) < len(expected)):
            self.receive()
        assert ends or not self.has_ended, "the server closed"
        seen, self.frames = self.frames, []
        assert len(seen) == len(expected), f"{[describe(frame) for frame in seen]}"
        assert not ends or not seen or not expected or expected[-1]["kind"] == seen[-1].kind, "the last frame"
        order = {name: place for place, name in enumerate(NUMBERS)}
        seen.sort(key=lambda frame: (order[frame.kind], frame.call_id))
        for frame, one in zip(seen, sorted(expected, key=lambda one: (order[one["kind"]], int(one.get("call_id", "0"))))):
            self.check(frame, one)

    def check(self, frame, expected):
        told = f"{describe(frame)}"
        assert (frame.kind, frame.call_id) == (expected["kind"], int(expected.get("call_id", "0"))), told
        if frame.kind == "hello":
            hello = message_type("Hello").FromString(frame.message)
            limits = {name: getattr(hello.limits, name) for name in self.file["server"]}
            assert hello.protocol_version == 1 and hello.HasField("server") and limits == self.file["server"], f"{hello}"
        if frame.kind not in ("response", "goaway"):
            return
        statuses = expected.get("status", "OK")
        assert STATUSES[frame.value] in ([statuses] if isinstance(statuses, str) else statuses), self.told(frame)
        if frame.kind == "response":
            assert frame.method == self.methods.pop(frame.call_id), told
        if frame.value:
            detail = message_type("ErrorDetail").FromString(frame.message)
            index = detail.block_index.value if detail.HasField("block_index") else None
            assert reason_name(detail.reason) == expected.get("reason", reason_name(detail.reason)), self.told(frame)
            assert index == expected.get("block_index", index), self.told(frame)
            assert detail.retryable == expected.get("retryable", detail.retryable), self.told(frame)
        elif frame.kind == "response":
            self.check_answer(frame, expected)

    def check_answer(self, frame, expected):
        assert frame.payload == raw(expected.get("payload", ""), self.kept), f"payload {frame.payload[:64].hex()}"
        values = top_fields(frame.message)
        for number, value in expected.get("fields", {}).items():
            wanted = value if isinstance(value, int) else raw(value, self.kept)
            assert values.get(int(number)) == wanted, f"field {number}: {values.get(int(number))}"
        for name, number in expected.get("keep", {}).items():
            self.kept[name] = values[number]

    @staticmethod
    def told(frame):
        return f"{STATUSES[frame.value]}: {message_type('ErrorDetail').FromString(frame.message)}" if frame.value else "OK"

    def part(self):
        """What holds after every case: all credit is back, nothing else came, and the connection is as good as before."""
        if self.has_ended:
            return
        self.step({"send": [{"kind": "ping", "call_id": str(CLOSING_PING)}],
                   "receive": [{"kind": "pong", "call_id": str(CLOSING_PING)}]})
        while self.returned < self.cost and not self.has_ended:
            self.receive()
        assert self.returned == self.cost, f"{self.returned} bytes of credit given back, {self.cost} taken"
        assert not self.frames, f"{[describe(frame) for frame in self.frames]}"


def top_fields(message_bytes):
    """A message's fields by number, the last of each: varints and bytes."""
    found, place = {}, 0

    def take():
        nonlocal place
        value = shift = 0
        while True:
            byte = message_bytes[place]
            place, value, shift = place + 1, value | (byte & 127) << shift, shift + 7
            if byte < 128:
                return value

    while place < len(message_bytes):
        key, value = take(), take()
        if key & 7 == 2:
            place, value = place + value, message_bytes[place:place + value]
        found[key >> 3] = value
    return found


def session_case(case, file):
    session = Session(sys.argv[1:6], file)
    try:
        if case.get("greet", True):
            session.step({"send": [file["hello"]], "receive": [{"kind": "hello"}]})
        for step in case["steps"]:
            session.step(step)
        session.part()
    except (OSError, ProtocolError) as failure:
        raise AssertionError(f"{type(failure).__name__}: {failure}") from failure
    finally:
        session.socket.close()


def main():
    failures, numbers = 0, []
    runs = [("frames", frame_case), ("messages", message_case), ("seals", seal_case)]
    if len(sys.argv) > 1:
        runs.append(("session", session_case))
    document = (PROTO / "PROTOCOL.md").read_text()
    for name, run in runs:
        file = json.loads((PROTO / "conformance" / f"{name}.json").read_text())
        for case in file["cases"]:
            numbers.append(case["number"])
            try:
                rule = case.get("rule")
                assert not rule or f"# {rule}\n" in document or f"**{rule}" in document, f"no rule {rule}"
                run(case, file)
            except AssertionError as failure:
                failures += 1
                print(f"{case['number']} {case['name']}: {failure}", file=sys.stderr)
    assert len(set(numbers)) == len(numbers), "a number is given twice"
    print(f"{len(numbers)} cases, {failures} failed")
    sys.exit(1 if failures else 0)


main()
