"""The coding of messages: C struct <-> Swift value."""
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field

from cairnproto.names import c_function, c_type, lower_camel, quoted, short
from cairnproto.types import properties


def decode_element(field, source):
    if field.type == Field.TYPE_MESSAGE:
        return f"try Wire.{short(field.type_name)}(c: {source}, in: arena)"
    if field.type == Field.TYPE_ENUM:
        return f"Wire.{short(field.type_name)}(rawValue: Int32(bitPattern: {source}.rawValue))"
    if field.type == Field.TYPE_STRING:
        return f"try arena.text({source})"
    if field.type == Field.TYPE_BYTES:
        return f"arena.bytes({source})"
    return source if field.type != Field.TYPE_BOOL else f"{source} != 0"


def decode_field(name, field):
    member = f"c.pointee.{field.name}"
    if field.label != Field.LABEL_REPEATED:
        if field.type == Field.TYPE_MESSAGE:
            return [f"        if let value = {member} {{ {name} = {decode_element(field, 'value')} }}"]
        return [f"        {name} = {decode_element(field, member)}"]
    count = f"c.pointee.n_{field.name}"
    lines = [f"        {name}.reserveCapacity({count})", f"        for index in 0..<{count} {{"]
    element = f"{member}[index]" + ("!" if field.type == Field.TYPE_MESSAGE else "")
    return lines + [f"            {name}.append({decode_element(field, element)})", "        }"]


def decode_oneof(prop, c_name):
    name = prop.name
    lines = [f"        switch c.pointee.{c_name}_case.rawValue {{"]
    for _, field in prop.cases:
        case = lower_camel(field.name)
        lines += [f"        case {field.number}:"]
        if field.type == Field.TYPE_MESSAGE:
            value = decode_element(field, "value")
            lines += [f"            if let value = c.pointee.{field.name} {{ {name} = .{case}({value}) }}"]
        else:
            lines += [f"            {name} = .{case}({decode_element(field, f'c.pointee.{field.name}')})"]
    return lines + ["        default: break", "        }"]


def encode_element(field, source, package):
    if field.type == Field.TYPE_MESSAGE:
        return f"arena.build({source})"
    if field.type == Field.TYPE_ENUM:
        return f"{c_type(package, short(field.type_name))}(rawValue: UInt32(bitPattern: {source}.rawValue))"
    if field.type == Field.TYPE_STRING:
        return f"arena.cString({source})"
    if field.type == Field.TYPE_BYTES:
        return f"arena.binary({source})"
    return source if field.type != Field.TYPE_BOOL else f"{source} ? 1 : 0"


def encode_field(name, field, package):
    member = f"c.pointee.{field.name}"
    if field.label == Field.LABEL_REPEATED:
        return [f"        c.pointee.n_{field.name} = {name}.count",
                f"        {member} = arena.array({name}) {{ {encode_element(field, '$0', package)} }}"]
    if field.type == Field.TYPE_MESSAGE:
        return [f"        if let {name} {{ {member} = {encode_element(field, name, package)} }}"]
    return [f"        {member} = {encode_element(field, name, package)}"]


def encode_oneof(prop, c_name, package):
    lines = [f"        switch {prop.name} {{"]
    for _, field in prop.cases:
        lines += [f"        case .{lower_camel(field.name)}(let value):",
                  f"            c.pointee.{c_name}_case = .init(rawValue: {field.number})",
                  f"            c.pointee.{field.name} = {encode_element(field, 'value', package)}"]
    return lines + ["        case nil: break", "        }"]


def message_coding(message, package):
    props = properties(message)
    c = c_type(package, message.name)
    decode, encode = [], []
    for prop in props:
        if prop.cases:
            oneof = message.oneof_decl[prop.cases[0][1].oneof_index].name
            decode += decode_oneof(prop, oneof)
            encode += encode_oneof(prop, oneof, package)
        else:
            decode += decode_field(quoted(prop.name), prop.field)
            encode += encode_field(quoted(prop.name), prop.field, package)
    init = [f"    init(c: UnsafeMutablePointer<{c}>, in arena: MessageArena) throws(WireError) {{",
            "        self.init()"] + decode + ["    }"]
    fill = [f"    func fill(_ c: UnsafeMutablePointer<{c}>, in arena: MessageArena) {{"] + encode + ["    }"]
    return [
        f"extension Wire.{message.name}: CodedMessage {{",
        f'    public static let messageName = "{message.name}"',
        f"    static func initialize(_ c: UnsafeMutablePointer<{c}>) {{ {c_function(package, message.name, 'init')}(c) }}",
    ] + init + (fill if encode else [fill[0] + "}"]) + ["}"]
