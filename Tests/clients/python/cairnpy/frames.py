"""Frames: PROTOCOL.md, "Frames". Bytes in, frames out; no I/O."""
import dataclasses
import struct

HEADER = struct.Struct("<IBBHIIQII")
KINDS = {1: "hello", 2: "request", 3: "response", 4: "cancel", 5: "ping", 6: "pong", 7: "credit", 8: "goaway"}
NUMBERS = {name: number for number, name in KINDS.items()}
STATUSES = (
    "OK CANCELLED UNKNOWN INVALID_ARGUMENT DEADLINE_EXCEEDED NOT_FOUND ALREADY_EXISTS PERMISSION_DENIED RESOURCE_EXHAUSTED "
    "FAILED_PRECONDITION ABORTED OUT_OF_RANGE UNIMPLEMENTED INTERNAL UNAVAILABLE DATA_LOSS UNAUTHENTICATED").split()


class ProtocolError(Exception):
    """The peer broke a rule of framing; `rule` is its name in the conformance cases."""

    def __init__(self, rule):
        super().__init__(rule)
        self.rule = rule


@dataclasses.dataclass
class Frame:
    kind: str
    method: int = 0
    call_id: int = 0
    value: int = 0
    credit: int = 0
    message: bytes = b""
    payload: bytes = b""

    def encode(self):
        return HEADER.pack(
            len(self.message) + len(self.payload), 1, NUMBERS[self.kind], 0, self.method, len(self.message), self.call_id,
            self.value, self.credit) + self.message + self.payload


class FrameReader:
    def __init__(self, message_limit, payload_limit):
        self.limits = message_limit, payload_limit
        self.buffer = bytearray()

    def feed(self, data):
        """Yields the frames that are complete now; raises ProtocolError at a header that breaks a rule."""
        self.buffer += data
        while len(self.buffer) >= HEADER.size:
            body, version, kind, flags, method, message, call_id, value, credit = HEADER.unpack_from(self.buffer)
            self.check(body, version, kind, flags, method, message, call_id, value, credit)
            if len(self.buffer) < HEADER.size + body:
                return
            middle, end = HEADER.size + message, HEADER.size + body
            frame = Frame(KINDS[kind], method, call_id, value, credit, bytes(self.buffer[HEADER.size:middle]),
                          bytes(self.buffer[middle:end]))
            del self.buffer[:end]
            yield frame

    def check(self, body, version, kind, flags, method, message, call_id, value, credit):
        if version != 1:
            raise ProtocolError("version")
        if kind not in KINDS:
            raise ProtocolError("kind")
        if flags:
            raise ProtocolError("flags")
        if message > body:
            raise ProtocolError("message_beyond_body")
        payload = body - message
        allowed = {
            "hello": not (method or call_id or value or credit or payload),
            "request": True,
            "response": value <= 16 and not (value and payload),
            "cancel": not (method or value or body),
            "ping": not (method or value or body),
            "pong": not (method or value or body),
            "credit": not (method or call_id or value or body),
            "goaway": not (method or call_id or payload) and value <= 16 and (value > 0 or not message),
        }
        if not allowed[KINDS[kind]]:
            raise ProtocolError("misplaced_field")
        if message > self.limits[0]:
            raise ProtocolError("message_too_long")
        if payload > self.limits[1]:
            raise ProtocolError("payload_too_long")
