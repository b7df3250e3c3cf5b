import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import {
  createFileRegistry,
  type DescEnum,
  type DescField,
  type DescFile,
  type DescMessage,
  type DescMethod,
  type DescOneof,
  type DescService,
  fromBinary,
  ScalarType,
} from "@bufbuild/protobuf";
import { FileDescriptorSetSchema, MethodOptions_IdempotencyLevel } from "@bufbuild/protobuf/wkt";
import { temporaryFolder } from "../test/support/owned-process.ts";
import { root, runTool } from "./run-tool.ts";

/** Where the checkout keeps the page. */
export const CONTRACT_PAGE = join(root, "docs/contract.md");

const PACKAGE = "harborforge.agents.v1";

const HEADER = `# The contract

<!-- Generated from the comments of proto/harborforge/agents/v1 by \`npm run generate\`. Do not edit. -->

Every method, field, limit and error of the package \`${PACKAGE}\`. [Services](services.md) and
[clients](clients.md) show how to use them. [Behaviour](behaviour.md) has the rules behind them. The rules for requests are
also annotations in the [proto files](../proto/harborforge/agents/v1).
`;

/** The field numbers in a path of `SourceCodeInfo`, by the element that they lead to. */
const PATH = { message: 4, enum: 5, service: 6, messageField: 2, messageOneof: 8, enumValue: 2, serviceMethod: 2 };

/**
 * The page of the contract as the proto files are now.
 *
 * @throws Error when the proto files do not compile, or contain something that this page does not show (nested types)
 */
export async function printContractPage(): Promise<string> {
  const folder = await temporaryFolder("contract");
  try {
    const image = join(folder, "image.binpb");
    const built = await runTool("buf", ["build", "--as-file-descriptor-set", "-o", image]);
    if (!built.ok) throw new Error(`the contract does not compile: ${built.output}`);
    const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, await readFile(image)));
    return pageOf([...registry.files].filter(({ proto }) => proto.package === PACKAGE));
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function pageOf(files: readonly DescFile[]): string {
  const comments = new Comments(files);
  const services = files.flatMap((file) => file.services);
  const messages = files.flatMap((file) => file.messages);
  const ofMethods = new Set(services.flatMap(({ methods }) => methods.flatMap(({ input, output }) => [input, output])));
  const shared = messages.filter((message) => !ofMethods.has(message)).sort(byName);
  const enums = files.flatMap((file) => file.enums).sort(byName);

  const nested = messages.find(({ nestedEnums, nestedMessages }) => nestedEnums.length + nestedMessages.length > 0);
  if (nested !== undefined) throw new Error(`the page does not show types within a message, such as in ${nested.name}`);

  const contents = [
    ...services.map((service) => `- [${service.name}](${anchor(service)}): ${linksTo(service.methods)}`),
    `- [Messages](#messages): ${linksTo(shared)}`,
    `- [Enums](#enums): ${linksTo(enums)}`,
  ];
  return `${[
    HEADER.trimEnd(),
    contents.join("\n"),
    ...services.flatMap((service) => [
      `## ${service.name}`,
      comments.paragraphs(service),
      ...service.methods.flatMap((method) => methodSection(method, comments)),
    ]),
    "## Messages",
    "The messages of a method are with the method. These are parts of them.",
    ...shared.flatMap((message) => [
      `### ${message.name}`,
      comments.paragraphs(message),
      fieldTable(message, comments),
    ]),
    "## Enums",
    ...enums.flatMap((desc) => [`### ${desc.name}`, comments.paragraphs(desc), valueTable(desc, comments)]),
  ].join("\n\n")}\n`;
}

function methodSection(method: DescMethod, comments: Comments): string[] {
  const streams = (streaming: boolean) => (streaming ? "stream " : "");
  const [takes, gives] = [
    method.methodKind === "client_streaming" || method.methodKind === "bidi_streaming",
    method.methodKind === "server_streaming" || method.methodKind === "bidi_streaming",
  ];
  const signature = `${method.name}(${streams(takes)}${method.input.name}) returns (${streams(gives)}${method.output.name})`;
  const safe = method.idempotency === MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS ? " It has no side effects." : "";
  return [
    `### ${method.name}`,
    `\`${signature}\`${safe}`,
    comments.paragraphs(method),
    ...[method.input, method.output].flatMap((message) => [
      messageTitle(message, comments),
      fieldTable(message, comments),
    ]),
  ];
}

/** Most messages of a method are nothing but its request or its response. */
function messageTitle(message: DescMessage, comments: Comments): string {
  const comment = comments.paragraphs(message);
  return /^The (request|response) of \w+\.$/.test(comment) ? `**${message.name}**` : `**${message.name}**: ${comment}`;
}

function fieldTable(message: DescMessage, comments: Comments): string {
  if (message.members.length === 0) return "It has no fields.";
  const rows = message.members.flatMap((member) =>
    member.kind === "field"
      ? [fieldRow(member, typeOf(member), comments)]
      : [
          `| one of: | | ${comments.cell(member)} |`,
          ...member.fields.map((field) => fieldRow(field, typeOf(field), comments)),
        ],
  );
  return ["| field | type | meaning |", "| --- | --- | --- |", ...rows].join("\n");
}

function fieldRow(field: DescField, type: string, comments: Comments): string {
  return `| \`${field.name}\` | ${type} | ${comments.cell(field)} |`;
}

function typeOf(field: DescField): string {
  const single = field.message ?? field.enum;
  const name = single === undefined ? scalarOf(field) : linkTo(single);
  if (field.fieldKind === "list") return `repeated ${name}`;
  return field.proto.proto3Optional ? `optional ${name}` : name;
}

function scalarOf(field: DescField): string {
  if (field.fieldKind === "map" || field.scalar === undefined) throw new Error(`the page does not show ${field}`);
  return ScalarType[field.scalar].toLowerCase();
}

function valueTable(desc: DescEnum, comments: Comments): string {
  const rows = desc.values.map((value) => `| \`${value.name}\` | ${value.number} | ${comments.cell(value)} |`);
  return ["| value | number | meaning |", "| --- | --- | --- |", ...rows].join("\n");
}

type Named = { readonly name: string; readonly typeName?: string };

function byName(one: Named, other: Named): number {
  return one.name < other.name ? -1 : 1;
}

function linksTo(described: readonly Named[]): string {
  return described.map(linkTo).join(", ");
}

/** Types of other packages have no section here. */
function linkTo(described: Named): string {
  const { name, typeName } = described;
  return typeName === undefined || typeName.startsWith(`${PACKAGE}.`) ? `[${name}](${anchor(described)})` : name;
}

function anchor({ name }: Named): string {
  return `#${name.toLowerCase()}`;
}

type Commented = DescService | DescMethod | DescMessage | DescField | DescOneof | DescEnum | DescEnum["values"][number];

/** The comments of the proto files, in Markdown. */
class Comments {
  readonly #byPath = new Map<string, string>();

  constructor(files: readonly DescFile[]) {
    for (const { proto, name } of files) {
      for (const { path, leadingComments } of proto.sourceCodeInfo?.location ?? [])
        if (leadingComments !== "") this.#byPath.set(`${name}:${path.join()}`, leadingComments);
    }
  }

  /** As paragraphs, without the line breaks of the source. */
  paragraphs(desc: Commented): string {
    return this.#paragraphsOf(desc).join("\n\n");
  }

  /** In a cell of a table, which is one line. */
  cell(desc: Commented): string {
    return this.#paragraphsOf(desc).join("<br>").replaceAll("|", "\\|");
  }

  /** Indented lines, which are examples, become code. */
  #paragraphsOf(desc: Commented): string[] {
    const text = this.#byPath.get(`${fileOf(desc).name}:${pathOf(desc).join()}`);
    if (text === undefined) throw new Error(`${desc} has no comment`);
    return text
      .trimEnd()
      .split(/\n\s*\n/)
      .map((paragraph) => {
        const line = paragraph.trim().replaceAll(/\s*\n\s*/g, " ");
        return /^ {4}/.test(paragraph) ? `\`${line}\`` : line;
      });
  }
}

function fileOf(desc: Commented): DescFile {
  return "file" in desc ? desc.file : desc.parent.file;
}

function pathOf(desc: Commented): number[] {
  switch (desc.kind) {
    case "service":
      return [PATH.service, desc.file.services.indexOf(desc)];
    case "message":
      return [PATH.message, desc.file.messages.indexOf(desc)];
    case "enum":
      return [PATH.enum, desc.file.enums.indexOf(desc)];
    case "rpc":
      return [...pathOf(desc.parent), PATH.serviceMethod, desc.parent.methods.indexOf(desc)];
    case "field":
      return [...pathOf(desc.parent), PATH.messageField, desc.parent.fields.indexOf(desc)];
    case "oneof":
      return [...pathOf(desc.parent), PATH.messageOneof, desc.parent.oneofs.indexOf(desc)];
    case "enum_value":
      return [...pathOf(desc.parent), PATH.enumValue, desc.parent.values.indexOf(desc)];
  }
}
