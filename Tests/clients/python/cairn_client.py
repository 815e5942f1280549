"""A client of Cairn in Python's standard library and protobuf, written from proto/PROTOCOL.md alone.

It is what another team would write in an afternoon: one connection, one call at a time, no retries. The messages come
from `protoc --python_out` over proto/cairn/v1. Tests/EndToEndTests runs `round_trip.py` with it against a real server.
"""

import importlib
import os
import socket
import ssl
import struct

HELLO, REQUEST, RESPONSE, CANCEL, PING, PONG, CREDIT, GOAWAY = range(1, 9)
HEADER = struct.Struct("<IBBHIIQII")
VERSION = 1

common = importlib.import_module("cairn.v1.common_pb2")
method = importlib.import_module("cairn.v1.method_pb2")
session = importlib.import_module("cairn.v1.session_pb2")
volume = importlib.import_module("cairn.v1.volume_pb2")
snapshot = importlib.import_module("cairn.v1.snapshot_pb2")
block = importlib.import_module("cairn.v1.block_pb2")

MAX_MESSAGE, MAX_PAYLOAD = 1 << 20, 16 << 20


class CallFailed(Exception):
    """The server's answer to a call that failed."""

    def __init__(self, status, detail):
        super().__init__(f"status {status}: {session.Reason.Name(detail.reason)}: {detail.text}")
        self.status = status
        self.detail = detail


class Disconnected(Exception):
    """The connection ended; `detail` says why, if the server did."""

    def __init__(self, detail=None):
        super().__init__(detail.text if detail else "the connection ended")
        self.detail = detail


def crc32c(data):
    """CRC-32C (Castagnoli), bit-reversed polynomial 0x82f63b78."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC_TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def _table():
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return table


_CRC_TABLE = _table()


class Client:
    def __init__(self, host, port, certificate, key, authority):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_verify_locations(authority)
        context.load_cert_chain(certificate, key)
        context.set_alpn_protocols(["cairn/1"])
        plain = socket.create_connection((host, port), timeout=20)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.stream = context.wrap_socket(plain, server_hostname=host)
        self.last_call = 0
        limits = session.SessionLimits(
            max_message_bytes=MAX_MESSAGE, max_payload_bytes=MAX_PAYLOAD, max_calls=16, initial_credit=1 << 20
        )
        hello = session.Hello(
            protocol_version=VERSION, agent="cairn-python/0.1", instance_id=os.urandom(16), limits=limits
        )
        self._send(HELLO, hello.SerializeToString())
        kind, fields, message, _ = self._receive()
        if kind != HELLO:
            raise Disconnected(self._detail(message))
        self.hello = session.Hello.FromString(message)
        self.credit = self.hello.limits.initial_credit

    def close(self):
        self.stream.unwrap().close()

    def call(self, number, request, response_type, payload=b"", timeout_ms=10000):
        """Makes one call and waits for its answer: (message, payload)."""
        message = request.SerializeToString()
        body = len(message) + len(payload)
        cost = body if payload or body > 4096 else 0
        # One call at a time: what an earlier one took has been given back.
        assert cost <= self.credit, (cost, self.credit)
        self.credit -= cost
        self.last_call += 1
        self._send(REQUEST, message, payload, number, self.last_call, timeout_ms)
        while True:
            kind, (method_number, call_id, value), message, payload = self._receive()
            if kind == PING:
                self._send(PONG, call_id=call_id)
            elif kind == GOAWAY and value != 0:
                raise Disconnected(self._detail(message))
            elif kind == RESPONSE:
                assert (method_number, call_id) == (number, self.last_call)
                if value != 0:
                    raise CallFailed(value, self._detail(message))
                return response_type.FromString(message), payload

    @staticmethod
    def _detail(message):
        return session.ErrorDetail.FromString(message)

    def _send(self, kind, message=b"", payload=b"", number=0, call_id=0, value=0):
        body = len(message) + len(payload)
        header = HEADER.pack(body, VERSION, kind, 0, number, len(message), call_id, value, 0)
        self.stream.sendall(header + message + payload)

    def _receive(self):
        body, version, kind, flags, number, message_length, call_id, value, credit = HEADER.unpack(self._read(32))
        assert version == VERSION and flags == 0 and message_length <= body <= MAX_MESSAGE + MAX_PAYLOAD
        if kind != HELLO:
            self.credit += credit
        message = self._read(message_length)
        return kind, (number, call_id, value), message, self._read(body - message_length)

    def _read(self, count):
        parts = []
        while count:
            part = self.stream.recv(min(count, 1 << 20))
            if not part:
                raise Disconnected()
            parts.append(part)
            count -= len(part)
        return b"".join(parts)
