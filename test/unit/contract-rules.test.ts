import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { type DescField, type DescMessage, type DescService, getOption, hasOption } from "@bufbuild/protobuf";
import {
  type FieldRules,
  field as fieldRules,
  Ignore,
  message as messageRules,
  oneof as oneofRules,
} from "@bufbuild/protovalidate/gen/buf/validate/validate_pb.js";
import { describe, expect, it } from "vitest";
import { compileRuleCheck } from "../../src/rpc/validation/request-check.ts";
import { blamedField, PATTERN_WORDS } from "../../src/rpc/validation/violation-words.ts";

const PACKAGE = "harborforge.agents.v1";

/** Fields of requests that need no rule, each with its reason. */
const NEED_NO_RULE: ReadonlySet<string> = new Set([
  // Both values are valid, whatever the other fields are.
  "ListAgentTransitionsRequest.newest_first",
  "ListWakesRequest.newest_first",
  "WatchAgentsRequest.conflate",
  "AgentBeat.leaving",
  // Unset selects both.
  "AgentFilter.stalled",
  // The rule is one of instance_id, which it requires.
  "HeartbeatRequest.takes_wakes",
  // Any number is valid: the greater one wins.
  "HeartbeatRequest.generation",
  "Progress.step",
  // Opaque to callers: an invalid one is INVALID_PAGE_TOKEN, by the check value in the token.
  "ListTokensRequest.page_token",
  "ListUsersRequest.page_token",
  "ListAgentsRequest.page_token",
  "ListAgentTransitionsRequest.page_token",
  "ListIncidentsRequest.page_token",
  "ListWakesRequest.page_token",
  "ListPausesRequest.page_token",
]);

const services = await readServices();
const requests = requestMessages(services);

/** All services of the contract, also those added after this test. */
async function readServices(): Promise<DescService[]> {
  const folder = join(import.meta.dirname, "../../gen", ...PACKAGE.split("."));
  const files = (await readdir(folder)).filter((name) => name.endsWith("_service_pb.ts"));
  const modules: object[] = await Promise.all(files.map((name) => import(pathToFileURL(join(folder, name)).href)));
  return modules.flatMap((module) => Object.values(module)).filter(isService);
}

function isService(value: unknown): value is DescService {
  return typeof value === "object" && value !== null && "kind" in value && value.kind === "service";
}

/** The request messages of methods, and their message fields, where they are ours. */
function requestMessages(all: readonly DescService[]): DescMessage[] {
  const found = new Map<string, DescMessage>();
  const add = (desc: DescMessage): void => {
    if (found.has(desc.typeName) || !isOurs(desc)) return;
    found.set(desc.typeName, desc);
    for (const field of desc.fields) if (field.message !== undefined) add(field.message);
  };
  for (const service of all) for (const method of service.methods) add(method.input);
  return [...found.values()];
}

function isOurs(desc: DescMessage): boolean {
  return desc.file.proto.package === PACKAGE;
}

/** The missing part of a field's rules; undefined when nothing is missing. */
function lackOf(field: DescField): string | undefined {
  const rules = getOption(field, fieldRules);
  if (field.fieldKind === "map") return "a rule for maps, and the check of their size in shape-check.ts";
  if (field.fieldKind !== "list") return lackOfValue(field, rules);
  const { type } = rules;
  if (type.case !== "repeated" || type.value.maxItems === undefined || type.value.maxItems === 0n) return "max_items";
  if (type.value.items?.ignore === Ignore.ALWAYS) return undefined;
  return lackOfValue(field, type.value.items);
}

function lackOfValue(field: DescField, rules: FieldRules | undefined): string | undefined {
  const type = rules?.type;
  if (field.enum !== undefined) {
    return type?.case === "enum" && type.value.definedOnly ? undefined : "enum.defined_only";
  }
  // Messages of ours have rules of their own, and are checked separately.
  if (field.message !== undefined && isOurs(field.message)) return undefined;
  if (type?.case === "string") {
    return type.value.maxLen > 0n || type.value.maxBytes > 0n ? undefined : "string.max_len or string.max_bytes";
  }
  return type?.case === undefined && (rules?.cel.length ?? 0) === 0 ? "a rule" : undefined;
}

describe("the rules of the contract", () => {
  it("cover all its services", () => {
    expect(services.map(({ name }) => name)).toEqual(expect.arrayContaining(["AgentService", "UserService"]));
    expect(requests.map(({ name }) => name)).toEqual(
      expect.arrayContaining(["CreateUserRequest", "AgentBeat", "AgentFilter", "Exhaustion", "HeartbeatRequest"]),
    );
  });

  it.each(requests)("guard every field of $name that needs it", (desc) => {
    const lacking = desc.fields
      .filter((field) => !NEED_NO_RULE.has(`${desc.name}.${field.name}`))
      .flatMap((field) => {
        const lack = lackOf(field);
        return lack === undefined ? [] : [`${field.name} lacks ${lack}`];
      });
    expect(lacking).toEqual([]);
    const optional = desc.oneofs.filter((oneof) => !hasOption(oneof, oneofRules)).map(({ name }) => name);
    // Without it the server chooses the time itself.
    expect(optional).toEqual(desc.name === "Exhaustion" ? ["recovery"] : []);
  });

  it("have no exception for a field that does not exist or has a rule", () => {
    const unruled = requests.flatMap((desc) =>
      desc.fields.filter((field) => lackOf(field) !== undefined).map((field) => `${desc.name}.${field.name}`),
    );
    expect(unruled.sort()).toEqual([...NEED_NO_RULE].sort());
  });

  it.each(requests)("of $name compile", (desc) => {
    // Throws for an invalid rule.
    compileRuleCheck(desc);
  });

  it("over several fields name the one at fault, and the allowed values", () => {
    const rules = requests.flatMap((desc) => getOption(desc, messageRules).cel.map((rule) => ({ desc, rule })));
    expect(rules.length).toBeGreaterThan(5);
    for (const { desc, rule } of rules) {
      expect(blamedField(desc, rule.id), `${desc.name}: ${rule.id}`).toBeDefined();
      expect(rule.message).toMatch(/^must /);
    }
  });

  it("describe their patterns in words", () => {
    const patternsOf = ({ type, cel }: FieldRules): string[] => {
      for (const rule of cel) expect(rule.message).toMatch(/^must /);
      if (type.case === "string") return type.value.pattern === "" ? [] : [type.value.pattern];
      return type.case === "repeated" && type.value.items !== undefined ? patternsOf(type.value.items) : [];
    };
    const patterns = requests.flatMap((desc) =>
      desc.fields.flatMap((field) => patternsOf(getOption(field, fieldRules))),
    );
    expect(new Set(patterns)).toEqual(new Set(PATTERN_WORDS.keys()));
  });
});
