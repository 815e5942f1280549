"""Names and types: how the contract's become Swift's and C's."""
import re

from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field

MAX_LINE = 120
SWIFT_KEYWORDS = set(
    "as associatedtype break case catch class continue default defer deinit do else enum extension fallthrough false "
    "fileprivate for func guard if import in init inout internal is let nil operator private protocol public repeat "
    "rethrows return self static struct subscript super switch throw throws true try typealias var where while".split())
# type -> (Swift type, default value)
SCALARS = {
    Field.TYPE_UINT32: ("UInt32", "0"),
    Field.TYPE_UINT64: ("UInt64", "0"),
    Field.TYPE_INT32: ("Int32", "0"),
    Field.TYPE_INT64: ("Int64", "0"),
    Field.TYPE_BOOL: ("Bool", "false"),
    Field.TYPE_STRING: ("String", '""'),
    Field.TYPE_BYTES: ("[UInt8]", "[]"),
}
INITIALISMS = {"id": "ID", "ids": "IDs"}


class Unsupported(Exception):
    pass


def lower_camel(snake):
    first, *rest = snake.lower().split("_")
    return first + "".join(INITIALISMS.get(word, word.capitalize()) for word in rest)


def upper_camel(snake):
    return "".join(word.capitalize() for word in snake.lower().split("_"))


def quoted(name):
    return f"`{name}`" if name in SWIFT_KEYWORDS else name


def snake(camel):
    """As protoc-c writes a message's name in its functions."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", camel).lower()


def short(type_name):
    """.cairn.v1.UploadBlock -> UploadBlock"""
    return type_name.rsplit(".", 1)[1]


def c_type(package, name):
    return "__".join(part.capitalize() for part in package.split(".")) + "__" + name


def c_function(package, name, verb):
    return "__".join(package.split(".")) + "__" + snake(name) + "__" + verb


def element_type(field):
    if field.type == Field.TYPE_MESSAGE or field.type == Field.TYPE_ENUM:
        return "Wire." + short(field.type_name)
    if field.type not in SCALARS:
        raise Unsupported(f"{field.name}: type {field.type}")
    return SCALARS[field.type][0]


def swift_type(field):
    element = element_type(field)
    if field.label == Field.LABEL_REPEATED:
        return f"[{element}]"
    return element + "?" if field.type == Field.TYPE_MESSAGE else element


def default_value(field):
    if field.label == Field.LABEL_REPEATED:
        return "[]"
    if field.type == Field.TYPE_MESSAGE:
        return "nil"
    return ".unspecified" if field.type == Field.TYPE_ENUM else SCALARS[field.type][1]
