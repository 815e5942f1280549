"""One connection: TLS, handshake, calls, credit. PROTOCOL.md, "Transport" to "Errors"."""
import collections
import os
import select
import socket
import ssl
import time

from cairnpy.frames import STATUSES, Frame, FrameReader
from cairnpy.messages import message_type, method_number, reason_name

MESSAGE_LIMIT, PAYLOAD_LIMIT = 1 << 20, 16 << 20
READ_BYTES = 256 << 10


class CallFailed(Exception):
    """A RESPONSE or GOAWAY with a status."""

    def __init__(self, status, detail_bytes):
        self.status = STATUSES[status]
        self.detail = message_type("ErrorDetail").FromString(detail_bytes)
        self.reason = reason_name(self.detail.reason)
        super().__init__(f"{self.status} {self.reason}: {self.detail.text}")


class Connection:
    def __init__(self, host, port, authority, certificate, key, timeout=30.0):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_verify_locations(authority)
        context.load_cert_chain(certificate, key)
        context.set_alpn_protocols(["cairn/1"])
        raw = socket.create_connection((host, port), timeout)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = context.wrap_socket(raw, server_hostname=host)
        self.socket.setblocking(False)
        self.timeout = timeout
        self.reader = FrameReader(MESSAGE_LIMIT, PAYLOAD_LIMIT)
        self.output = bytearray()
        self.queue = collections.deque()
        self.calls = {}
        self.answers = {}
        self.last_id = 0
        self.peer = None
        self.goaway = False
        self.greet()

    def greet(self):
        hello = message_type("Hello")(protocol_version=1, agent="cairn-python/1", instance_id=os.urandom(16))
        hello.limits.max_message_bytes, hello.limits.max_payload_bytes = MESSAGE_LIMIT, PAYLOAD_LIMIT
        hello.limits.max_calls, hello.limits.initial_credit = 16, 1 << 20
        self.output += Frame("hello", message=hello.SerializeToString()).encode()
        self.run(lambda: self.peer is not None)
        self.credit, self.slots = self.peer.limits.initial_credit, self.peer.limits.max_calls

    # Calls

    def submit(self, method, request, payload=b"", timeout_ms=0):
        """Starts a call, now or when there is credit for it; gives its id, for `wait`."""
        self.last_id += 1
        frame = Frame("request", method_number(method), self.last_id, timeout_ms, 0, request.SerializeToString(), payload)
        self.calls[self.last_id] = method
        self.queue.append(frame)
        self.send_queued()
        return self.last_id

    def wait(self, call_id):
        """The call's response message and payload; raises CallFailed."""
        self.run(lambda: call_id in self.answers)
        frame, method = self.answers.pop(call_id)
        if frame.value:
            raise CallFailed(frame.value, frame.message)
        return message_type(method + "Response").FromString(frame.message), frame.payload

    def call(self, method, request, payload=b"", timeout_ms=0):
        return self.wait(self.submit(method, request, payload, timeout_ms))

    def cancel(self, call_id):
        """Says that the answer is not wanted; it comes all the same."""
        self.output += Frame("cancel", call_id=call_id).encode()

    def ping(self):
        self.output += Frame("ping", call_id=7).encode()

    def close(self):
        self.socket.setblocking(True)
        self.socket.settimeout(self.timeout)
        try:
            self.socket.unwrap().close()
        except (OSError, ValueError):
            self.socket.close()

    def send_queued(self):
        # In order: ids must rise. A call that waits for credit holds back those behind it.
        while self.queue and self.slots > 0:
            frame = self.queue[0]
            body = len(frame.message) + len(frame.payload)
            cost = body if frame.payload or body > 4096 else 0
            if cost > self.credit:
                return
            self.credit -= cost
            self.slots -= 1
            self.output += self.queue.popleft().encode()

    # Frames

    def receive(self, frame):
        if self.peer is not None:
            self.credit += frame.credit
        if frame.kind == "hello":
            self.peer = message_type("Hello").FromString(frame.message)
            return
        if frame.kind == "goaway":
            self.goaway = True
            if frame.value or self.peer is None:
                raise CallFailed(frame.value, frame.message)
        elif frame.kind == "response":
            self.answers[frame.call_id] = frame, self.calls.pop(frame.call_id)
            self.slots += 1
        elif frame.kind == "ping":
            self.output += Frame("pong", call_id=frame.call_id).encode()
        elif frame.kind == "request":
            # This client takes no calls. Its small requests cost no credit.
            detail = message_type("ErrorDetail")(reason=19, text="this client takes no calls")
            self.output += Frame("response", frame.method, frame.call_id, STATUSES.index("UNIMPLEMENTED"), 0,
                                 detail.SerializeToString()).encode()
        self.send_queued()

    # Bytes: reads go on while writes block

    def run(self, done):
        deadline = time.monotonic() + self.timeout
        while not done():
            progress = self.write() | self.read()
            if progress or done():
                continue
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("the server does not answer")
            select.select([self.socket], [self.socket] if self.output else [], [], left)

    def write(self):
        if not self.output:
            return False
        try:
            sent = self.socket.send(memoryview(self.output)[:READ_BYTES].tobytes())
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            return False
        del self.output[:sent]
        return True

    def read(self):
        try:
            data = self.socket.recv(READ_BYTES)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        if not data:
            raise ConnectionError("the server closed the connection")
        for frame in self.reader.feed(data):
            self.receive(frame)
        return True
