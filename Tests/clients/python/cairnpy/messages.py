"""The contract's messages: protoc compiles proto/ into a temporary folder on import."""
import atexit
import importlib
import pathlib
import shutil
import subprocess
import sys
import tempfile

PROTO = pathlib.Path(__file__).resolve().parents[4] / "proto"
FILES = ("common", "session", "volume", "snapshot", "block", "account", "server", "method")

_folder = tempfile.mkdtemp(prefix="cairn-proto-")
atexit.register(shutil.rmtree, _folder, ignore_errors=True)
# The generated modules are called cairn.v1.*: why this package is not called cairn.
subprocess.run(
    ["protoc", "-I", str(PROTO), f"--python_out={_folder}", *(f"cairn/v1/{name}.proto" for name in FILES)], check=True)
sys.path.insert(0, _folder)
_modules = [importlib.import_module(f"cairn.v1.{name}_pb2") for name in FILES]


def message_type(name):
    """The class of the message cairn.v1.<name>."""
    for module in _modules:
        if hasattr(module, name):
            return getattr(module, name)
    raise KeyError(f"the contract has no message {name}")


def method_number(name):
    """CreateVolume -> 1."""
    words = "".join("_" + letter if letter.isupper() else letter for letter in name).upper()
    return _modules[FILES.index("method")].Method.Value("METHOD" + words)


def reason_name(number):
    reasons = message_type("Reason")
    return reasons.Name(number).removeprefix("REASON_") if number in reasons.values() else str(number)
