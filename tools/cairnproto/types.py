"""The Swift value types of messages and enums."""
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field

from cairnproto.names import (
    MAX_LINE, Unsupported, default_value, element_type, lower_camel, quoted, snake, swift_type, upper_camel)


class Comments:
    def __init__(self, file):
        self.leading = {tuple(at.path): at.leading_comments for at in file.source_code_info.location}
        detached = [d for at in file.source_code_info.location if tuple(at.path) == (12,)
                    for d in list(at.leading_detached_comments) + [at.leading_comments]]
        self.of_file = "\n".join(text.strip("\n") for text in detached if text)

    def lines(self, path, indent):
        return [f"{indent}///{line}".rstrip() for line in self.leading.get(path, "").rstrip("\n").split("\n") if line.strip()]


class Property:
    """A stored property of a message: a plain field, or a oneof with its cases."""

    def __init__(self, name, type, default, comment, field=None, cases=()):
        self.name, self.type, self.default, self.comment = name, type, default, comment
        self.field, self.cases = field, cases


def properties(message, path=()):
    if message.nested_type or message.enum_type:
        raise Unsupported(f"{message.name}: nested types")
    found, seen = [], set()
    for index, field in enumerate(message.field):
        if field.proto3_optional:
            raise Unsupported(f"{message.name}.{field.name}: proto3 optional")
        comment = path + (2, index)
        if not field.HasField("oneof_index"):
            found.append(Property(lower_camel(field.name), swift_type(field), default_value(field), comment, field=field))
        elif field.oneof_index not in seen:
            seen.add(field.oneof_index)
            name = message.oneof_decl[field.oneof_index].name
            cases = [(path + (2, i), f) for i, f in enumerate(message.field)
                     if f.HasField("oneof_index") and f.oneof_index == field.oneof_index]
            if any(f.type in (Field.TYPE_STRING, Field.TYPE_ENUM) for _, f in cases):
                raise Unsupported(f"{message.name}.{name}: strings and enums in a oneof")
            found.append(Property(lower_camel(name), upper_camel(name) + "?", "nil", path + (8, field.oneof_index), cases=cases))
    return found


def memberwise_init(props):
    arguments = [f"{quoted(p.name)}: {p.type} = {p.default}" for p in props]
    one_line = f"        public init({', '.join(arguments)}) {{"
    if len(one_line) <= MAX_LINE:
        lines = [one_line]
    else:
        lines = ["        public init("] + [f"            {a}," for a in arguments]
        lines[-1] = lines[-1].rstrip(",")
        lines.append("        ) {")
    return lines + [f"            self.{p.name} = {quoted(p.name)}" for p in props] + ["        }"]


def message_type(message, path, comments):
    props = properties(message, path)
    lines = comments.lines(path, "    ") + [f"    public struct {message.name}: Sendable, Hashable {{"]
    for prop in props:
        if prop.cases:
            lines += [f"        public enum {prop.type.rstrip('?')}: Sendable, Hashable {{"]
            for case_path, field in prop.cases:
                lines += comments.lines(case_path, "            ")
                lines += [f"            case {quoted(lower_camel(field.name))}({element_type(field)})"]
            lines += ["        }"]
        lines += comments.lines(prop.comment, "        ")
        lines += [f"        public var {quoted(prop.name)}: {prop.type} = {prop.default}"]
    lines += ["", "        /// All fields at their defaults."] if props else []
    lines += ["        public init() {}"]
    if props:
        lines += memberwise_init(props)
    return lines + ["    }"]


def enum_type(enum, path, comments):
    prefix = snake(enum.name).upper() + "_"
    values = []
    for index, value in enumerate(enum.value):
        if not value.name.startswith(prefix):
            raise Unsupported(f"{value.name}: without the prefix {prefix}")
        bare = value.name[len(prefix):]
        values.append((path + (2, index), quoted(lower_camel(bare)), value.number, bare))
    if not enum.value or values[0][3] != "UNSPECIFIED" or values[0][2] != 0:
        raise Unsupported(f"{enum.name}: the zero value must be {prefix}UNSPECIFIED")
    lines = comments.lines(path, "    ")
    lines += [f"    public struct {enum.name}: RawRepresentable, Hashable, Sendable, CaseIterable, CustomStringConvertible {{",
              "        public let rawValue: Int32", "        public init(rawValue: Int32) { self.rawValue = rawValue }", ""]
    for value_path, name, number, _ in values:
        lines += comments.lines(value_path, "        ")
        lines += [f"        public static let {name} = {enum.name}(rawValue: {number})"]
    lines += ["", "        /// The values that this version of the contract names.",
              f"        public static let allCases: [{enum.name}] = ["]
    lines += [f"            .{name.strip('`')}," for _, name, _, _ in values] + ["        ]"]
    lines += ["        /// The contract's name without its prefix; the number, where this version has no name for it.",
              "        public var description: String {", "            switch rawValue {"]
    lines += [f'            case {number}: "{bare}"' for _, _, number, bare in values]
    return lines + ['            default: "\\(rawValue)"', "            }", "        }", "    }"]
