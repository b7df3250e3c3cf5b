import type {
  AnyDesc,
  DescEnum,
  DescExtension,
  DescField,
  DescFile,
  DescMessage,
  DescOneof,
  Message,
  Registry,
} from "@bufbuild/protobuf";
import { getExtension, hasExtension, isMessage, ScalarType } from "@bufbuild/protobuf";
import { isReflectMessage, type ReflectMessage, reflect } from "@bufbuild/protobuf/reflect";
import { FieldDescriptorProto_Label } from "@bufbuild/protobuf/wkt";

/** The largest field number, which `max` means in a range of extensions. */
const END_OF_NUMBERS = 536_870_912;
/** The largest enum number. Ranges of enums include their ends. */
const LARGEST_ENUM_NUMBER = 2_147_483_647;

/**
 * Prints a proto2 file from its descriptor, without comments, which descriptors do not have. `buf format` completes the
 * layout. It supports only the features that the printed files use, so the caller compiles the output and compares it
 * with the descriptor.
 *
 * @param registry the extensions that occur in options
 */
export function printProto(file: DescFile, registry: Registry): string {
  const print = new Printer(file, registry);
  return print.file();
}

class Printer {
  readonly #file: DescFile;
  readonly #registry: Registry;

  constructor(file: DescFile, registry: Registry) {
    this.#file = file;
    this.#registry = registry;
  }

  file(): string {
    const { proto, enums, messages, extensions } = this.#file;
    return [
      `syntax = "proto2";`,
      `package ${proto.package};`,
      ...proto.dependency.map((name) => `import "${name}";`),
      ...this.#options(proto.options).map((option) => `option ${option};`),
      ...extensions.map(
        (extension) => `extend ${this.#name(extension.extendee.typeName)} { ${this.#field(extension)} }`,
      ),
      ...messages.map((message) => this.#message(message)),
      ...enums.map((desc) => this.#enum(desc)),
      "",
    ].join("\n\n");
  }

  #message(desc: DescMessage): string {
    const { proto } = desc;
    const ranges = proto.reservedRange.map(({ start, end }) => range(start, end - 1, END_OF_NUMBERS - 1));
    return [
      `message ${desc.name} {`,
      ...this.#options(proto.options).map((option) => `option ${option};`),
      ...reserved(ranges, proto.reservedName),
      ...proto.extensionRange.map(
        ({ start, end }) => `extensions ${range(start ?? 0, (end ?? 0) - 1, END_OF_NUMBERS - 1)};`,
      ),
      ...desc.members.map((member) => (member.kind === "oneof" ? this.#oneof(member) : this.#field(member))),
      ...desc.nestedEnums.map((nested) => this.#enum(nested)),
      ...desc.nestedMessages.map((nested) => this.#message(nested)),
      "}",
    ].join("\n");
  }

  #oneof(desc: DescOneof): string {
    const fields = desc.fields.map((field) => this.#field(field));
    return [`oneof ${desc.name} {`, ...fields, "}"].join("\n");
  }

  #field(field: DescField | DescExtension): string {
    const { proto } = field;
    const options = this.#options(proto.options);
    if (proto.defaultValue !== undefined && proto.defaultValue !== "") {
      options.push(`default = ${field.scalar === ScalarType.STRING ? quote(proto.defaultValue) : proto.defaultValue}`);
    }
    const type = field.message?.typeName ?? field.enum?.typeName;
    return [
      ...(field.oneof === undefined ? [label(proto.label)] : []),
      type === undefined ? scalarName(field) : this.#name(type),
      `${proto.name} = ${proto.number}`,
      `${options.length === 0 ? "" : `[${options.join(", ")}]`};`,
    ].join(" ");
  }

  #enum(desc: DescEnum): string {
    const { proto } = desc;
    const ranges = proto.reservedRange.map(({ start, end }) => range(start, end, LARGEST_ENUM_NUMBER));
    const values = desc.values.map((value) => `${value.proto.name} = ${value.number};`);
    return [`enum ${desc.name} {`, ...reserved(ranges, proto.reservedName), ...values, "}"].join("\n");
  }

  /** Each option as `name = value`; extensions field by field, as people write them. */
  #options(options: Message | undefined): string[] {
    if (options === undefined) return [];
    const desc = this.#registry.getMessage(options.$typeName);
    if (desc === undefined) throw new TypeError(`${options.$typeName} is not registered`);
    const message = reflect(desc, options);
    const own = message.fields
      .filter((field) => message.isSet(field))
      .map((field) => `${field.name} = ${this.#value(field, message.get(field))}`);
    const extended = [...this.#registry].filter(
      (type) => type.kind === "extension" && type.extendee.typeName === desc.typeName && hasExtension(options, type),
    );
    return [...own, ...extended.flatMap((type) => this.#extensionOptions(options, type))];
  }

  #extensionOptions(options: Message, type: AnyDesc): string[] {
    if (type.kind !== "extension" || type.message === undefined) throw new TypeError(`${type} is no message`);
    const value: unknown = getExtension(options, type);
    if (!isMessage(value)) throw new TypeError(`${type} is not read as a message`);
    const message = reflect(type.message, value);
    return message.fields
      .filter((field) => message.isSet(field))
      .flatMap((field) => {
        const values: unknown[] = field.fieldKind === "list" ? [...message.get(field)] : [message.get(field)];
        return values.map((value) => `(${this.#name(type.typeName)}).${field.name} = ${this.#value(field, value)}`);
      });
  }

  #value(field: DescField, value: unknown): string {
    if (isReflectMessage(value)) return this.#literal(value);
    if (field.enum !== undefined) return field.enum.value[Number(value)]?.name ?? String(value);
    return typeof value === "string" ? quote(value) : String(value);
  }

  #literal(message: ReflectMessage): string {
    const fields = message.fields.filter((field) => message.isSet(field));
    return `{\n${fields.map((field) => `${field.name}: ${this.#value(field, message.get(field))}`).join("\n")}\n}`;
  }

  /** Without the package of the file, which is implicit. */
  #name(typeName: string): string {
    const prefix = `${this.#file.proto.package}.`;
    return typeName.startsWith(prefix) ? typeName.slice(prefix.length) : typeName;
  }
}

function label(value: FieldDescriptorProto_Label): string {
  switch (value) {
    case FieldDescriptorProto_Label.OPTIONAL:
      return "optional";
    case FieldDescriptorProto_Label.REQUIRED:
      return "required";
    case FieldDescriptorProto_Label.REPEATED:
      return "repeated";
  }
}

function scalarName(field: DescField | DescExtension): string {
  const scalar = field.scalar;
  if (scalar === undefined) throw new TypeError(`${field} has a type that is not printed`);
  return String(ScalarType[scalar]).toLowerCase();
}

/** Both ends are included. */
function range(first: number, last: number, largest: number): string {
  if (first === last) return String(first);
  return `${first} to ${last === largest ? "max" : last}`;
}

function reserved(ranges: readonly string[], names: readonly string[]): string[] {
  return [
    ...(ranges.length === 0 ? [] : [`reserved ${ranges.join(", ")};`]),
    ...(names.length === 0 ? [] : [`reserved ${names.map(quote).join(", ")};`]),
  ];
}

/** Quotes a string for a proto file: C escapes, with UTF-8 unchanged. */
function quote(text: string): string {
  const escaped = text.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");
  return `"${escaped}"`;
}
