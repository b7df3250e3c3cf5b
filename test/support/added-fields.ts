import {
  clone,
  create,
  createFileRegistry,
  type DescFile,
  type DescMessage,
  type MessageInitShape,
} from "@bufbuild/protobuf";
import {
  type DescriptorProto,
  DescriptorProtoSchema,
  FieldDescriptorProtoSchema,
  FieldOptions_JSType,
  FieldOptionsSchema,
  FileDescriptorProtoSchema,
  FileDescriptorSetSchema,
  file_google_protobuf_struct,
  file_google_protobuf_wrappers,
  FieldDescriptorProto_Label as Label,
  OneofDescriptorProtoSchema,
  FieldDescriptorProto_Type as Type,
} from "@bufbuild/protobuf/wkt";
import type { FastPathMessages } from "../../scripts/fast-path.ts";

/** A field as a newer version of the contract may add it to a message. */
export interface AddedField {
  readonly name: string;
  readonly field: MessageInitShape<typeof FieldDescriptorProtoSchema>;
  readonly kind?: "optional" | "oneof" | "map" | "recursive";
  /** By default it takes the first number that is free. */
  readonly number?: number;
  /**
   * Whether the fast path reads and writes the field. Otherwise it leaves messages with the field to the
   * library.
   */
  readonly isHandled: boolean;
}

const HANDLED_SCALARS = ["STRING", "BOOL", "INT32", "UINT32", "INT64", "UINT64"] as const;
const OTHER_SCALARS = [
  "BYTES",
  "DOUBLE",
  "FLOAT",
  "FIXED32",
  "FIXED64",
  "SFIXED32",
  "SFIXED64",
  "SINT32",
  "SINT64",
] as const;

const STATUS = { type: Type.ENUM, typeName: ".harborforge.agents.v1.AgentStatus" };
const DURATION = { type: Type.MESSAGE, typeName: ".google.protobuf.Duration" };
const EXHAUSTION = { type: Type.MESSAGE, typeName: ".harborforge.agents.v1.Exhaustion" };
const asMessage = (typeName: string) => ({ type: Type.MESSAGE, typeName });

export const ADDED_FIELDS: readonly AddedField[] = [
  ...HANDLED_SCALARS.flatMap((type): AddedField[] => [
    { name: type.toLowerCase(), field: { type: Type[type] }, isHandled: true },
    { name: `optional ${type.toLowerCase()}`, field: { type: Type[type] }, kind: "optional", isHandled: true },
    { name: `${type.toLowerCase()} in a oneof`, field: { type: Type[type] }, kind: "oneof", isHandled: true },
    { name: `repeated ${type.toLowerCase()}`, field: { type: Type[type], label: Label.REPEATED }, isHandled: false },
  ]),
  ...OTHER_SCALARS.flatMap((type): AddedField[] => [
    { name: type.toLowerCase(), field: { type: Type[type] }, isHandled: false },
    { name: `optional ${type.toLowerCase()}`, field: { type: Type[type] }, kind: "optional", isHandled: false },
    { name: `${type.toLowerCase()} in a oneof`, field: { type: Type[type] }, kind: "oneof", isHandled: false },
    { name: `repeated ${type.toLowerCase()}`, field: { type: Type[type], label: Label.REPEATED }, isHandled: false },
  ]),
  { name: "enum", field: STATUS, isHandled: true },
  { name: "optional enum", field: STATUS, kind: "optional", isHandled: true },
  { name: "repeated enum", field: { ...STATUS, label: Label.REPEATED }, isHandled: false },
  { name: "message", field: DURATION, isHandled: true },
  { name: "message with a oneof", field: EXHAUSTION, isHandled: true },
  { name: "repeated message", field: { ...EXHAUSTION, label: Label.REPEATED }, isHandled: true },
  { name: "message in a oneof", field: EXHAUSTION, kind: "oneof", isHandled: true },
  { name: "message in itself", field: { type: Type.MESSAGE }, kind: "recursive", isHandled: false },
  { name: "map", field: { type: Type.MESSAGE, label: Label.REPEATED }, kind: "map", isHandled: false },
  { name: "Struct", field: asMessage(".google.protobuf.Struct"), isHandled: false },
  { name: "Int64Value", field: asMessage(".google.protobuf.Int64Value"), isHandled: false },
  {
    name: "int64 as a string",
    field: { type: Type.INT64, options: create(FieldOptionsSchema, { jstype: FieldOptions_JSType.JS_STRING }) },
    isHandled: false,
  },
  { name: "int32 with a number of two bytes", field: { type: Type.INT32 }, number: 2_047, isHandled: true },
  { name: "message with a number of two bytes", field: DURATION, number: 100, isHandled: true },
  { name: "int32 with a number of three bytes", field: { type: Type.INT32 }, number: 2_048, isHandled: false },
];

/** The same messages with one more field, `added`, in each of them and in each message of the contract in them. */
export function withAddedField(messages: FastPathMessages, added: AddedField): FastPathMessages {
  const files = new Map<string, DescFile>();
  const collect = (file: DescFile): void => {
    for (const dependency of file.dependencies) collect(dependency);
    files.set(file.name, file);
  };
  for (const file of [file_google_protobuf_struct, file_google_protobuf_wrappers]) collect(file);
  for (const { file } of [...messages.read, ...messages.written]) collect(file);
  const isOfContract = ({ proto }: DescFile): boolean => proto.package === "harborforge.agents.v1";
  const changed = [...files.values()].map((file) => {
    const proto = clone(FileDescriptorProtoSchema, file.proto);
    if (!isOfContract(file)) return proto;
    for (const message of proto.messageType) addField(message, added);
    proto.dependency.push(`${file_google_protobuf_struct.name}.proto`, `${file_google_protobuf_wrappers.name}.proto`);
    return proto;
  });
  const registry = createFileRegistry(create(FileDescriptorSetSchema, { file: changed }));
  const find = ({ typeName }: DescMessage): DescMessage => {
    const desc = registry.getMessage(typeName);
    if (desc === undefined) throw new Error(`${typeName} is missing`);
    return desc;
  };
  return { read: messages.read.map(find), written: messages.written.map(find) };
}

function addField(message: DescriptorProto, { field, kind, number }: AddedField): void {
  const taken = new Set(message.field.map((of) => of.number));
  const own = `.harborforge.agents.v1.${message.name}`;
  // Otherwise it would contain itself, which is a case of its own.
  if (field.typeName === own) return;
  let free = number ?? 1;
  while (taken.has(free)) free += 1;
  const added = create(FieldDescriptorProtoSchema, { label: Label.OPTIONAL, ...field, name: "added", number: free });
  switch (kind) {
    case "optional":
    case "oneof":
      added.oneofIndex = message.oneofDecl.length;
      added.proto3Optional = kind === "optional";
      message.oneofDecl.push(create(OneofDescriptorProtoSchema, { name: "added_oneof" }));
      break;
    case "recursive":
      added.typeName = own;
      break;
    case "map":
      added.typeName = `${own}.AddedEntry`;
      message.nestedType.push(
        create(DescriptorProtoSchema, {
          name: "AddedEntry",
          options: { mapEntry: true },
          field: [
            { name: "key", number: 1, label: Label.OPTIONAL, type: Type.STRING },
            { name: "value", number: 2, label: Label.OPTIONAL, ...EXHAUSTION },
          ],
        }),
      );
      break;
    default:
  }
  message.field.push(added);
}
