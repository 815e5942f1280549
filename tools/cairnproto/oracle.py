"""Test code: random messages of every type, and the same message in swift-protobuf's types, field by field."""
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field

from cairnproto.names import element_type, lower_camel, quoted, short
from cairnproto.types import properties

RANDOM_SCALARS = {
    Field.TYPE_UINT32: "random.integer()",
    Field.TYPE_UINT64: "random.integer()",
    Field.TYPE_INT32: "random.integer()",
    Field.TYPE_INT64: "random.integer()",
    Field.TYPE_BOOL: "random.bool()",
    Field.TYPE_STRING: "random.text()",
    Field.TYPE_BYTES: "random.bytes()",
}


def random_element(field):
    if field.type == Field.TYPE_MESSAGE:
        return f"Wire.{short(field.type_name)}(random: &random)"
    if field.type == Field.TYPE_ENUM:
        return f"random.enumeration({element_type(field)}.allCases)"
    return RANDOM_SCALARS[field.type]


def random_init(message, props):
    lines = [f"extension Wire.{message.name}: RandomMessage {{", "    init(random: inout RandomValues) {", "        self.init()"]
    for prop in props:
        name = quoted(prop.name)
        if prop.cases:
            lines += [f"        switch random.below({len(prop.cases) + 1}) {{"]
            for index, (_, field) in enumerate(prop.cases):
                lines += [f"        case {index}: {name} = .{lower_camel(field.name)}({random_element(field)})"]
            lines += [f"        default: {name} = nil", "        }"]
        elif prop.field.label == Field.LABEL_REPEATED:
            lines += [f"        for _ in 0..<random.count() {{ {name}.append({random_element(prop.field)}) }}"]
        elif prop.field.type == Field.TYPE_MESSAGE:
            lines += [f"        if random.bool() {{ {name} = {random_element(prop.field)} }}"]
        else:
            lines += [f"        if random.isSet() {{ {name} = {random_element(prop.field)} }}"]
    return lines + ["    }", "}"]


def oracle_name(snake_name):
    """swift-protobuf's name of a field: as ours, but that it writes `Ids`, and keeps `description` for itself."""
    if snake_name == "description":
        return "description_p"
    return quoted(lower_camel(snake_name).replace("IDs", "Ids"))


def oracle_element(field, source):
    if field.type == Field.TYPE_MESSAGE:
        return f"{source}.oracle"
    if field.type == Field.TYPE_ENUM:
        return f"Cairn_V1_{short(field.type_name)}(rawValue: Int({source}.rawValue))!"
    return f"Data({source})" if field.type == Field.TYPE_BYTES else source


def oracle_conversion(message, props):
    lines = [f"extension Wire.{message.name}: OracleConvertible {{", f"    var oracle: Cairn_V1_{message.name} {{"]
    lines += [f"        {'var' if props else 'let'} oracle = Cairn_V1_{message.name}()"]
    for prop in props:
        ours = quoted(prop.name)
        if prop.cases:
            oneof = message.oneof_decl[prop.cases[0][1].oneof_index].name
            lines += [f"        switch {ours} {{"]
            for _, field in prop.cases:
                value = oracle_element(field, "value")
                lines += [f"        case .{lower_camel(field.name)}(let value): "
                          f"oracle.{oracle_name(oneof)} = .{oracle_name(field.name)}({value})"]
            lines += ["        case nil: break", "        }"]
            continue
        theirs = f"oracle.{oracle_name(prop.field.name)}"
        if prop.field.label == Field.LABEL_REPEATED:
            element = oracle_element(prop.field, "$0")
            lines += [f"        {theirs} = {ours}" + ("" if element == "$0" else f".map {{ {element} }}")]
        elif prop.field.type == Field.TYPE_MESSAGE:
            lines += [f"        if let {prop.name} {{ {theirs} = {prop.name}.oracle }}"]
        else:
            lines += [f"        {theirs} = {oracle_element(prop.field, ours)}"]
    return lines + ["        return oracle", "    }", "}"]


def messages_file(file):
    lines = ["import CairnWire", "import Foundation"]
    for message in file.message_type:
        props = properties(message)
        lines += [""] + random_init(message, props) + [""] + oracle_conversion(message, props)
    return lines


def catalogue_file(files):
    lines = ["import CairnWire", "", "/// Every message of the contract.",
             "let allMessages: [any (RandomMessage & OracleConvertible).Type] = ["]
    return lines + [f"    Wire.{m.name}.self," for file in files for m in file.message_type] + ["]"]
