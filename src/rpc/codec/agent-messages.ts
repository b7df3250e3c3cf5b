import { create, type DescField, type DescMessage, isMessage, type MessageShape, toBinary } from "@bufbuild/protobuf";
import { type Agent, AgentSchema } from "../../../gen/harborforge/agents/v1/agent_pb.ts";
import {
  BatchGetAgentsResponseSchema,
  GetAgentResponseSchema,
  ListAgentsResponseSchema,
  WatchAgentsResponseSchema,
} from "../../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { writeUsualAgents } from "./agent-encoder.ts";

/** Messages that are mostly agents: by their names, where those stand, and what else there is, which is written apart. */
const FIELDS = new Map<string, { readonly agents: DescField; readonly others: readonly DescField[] }>();
for (const desc of [
  GetAgentResponseSchema,
  BatchGetAgentsResponseSchema,
  ListAgentsResponseSchema,
  WatchAgentsResponseSchema,
]) {
  const agents = desc.fields.find(({ message }) => message?.typeName === AgentSchema.typeName);
  if (agents === undefined || desc.oneofs.length > 0) throw new TypeError(`${desc.typeName} is not mostly agents`);
  FIELDS.set(desc.typeName, { agents, others: desc.fields.filter((field) => field !== agents) });
}

/** Writes a message that is mostly agents. Undefined for any other, and for one with an agent that is not usual. */
export function writeMessageOfAgents<Desc extends DescMessage>(
  desc: Desc,
  message: MessageShape<Desc>,
): Buffer | undefined {
  const fields = FIELDS.get(desc.typeName);
  if (fields === undefined || message.$unknown !== undefined) return undefined;
  const value: unknown = Reflect.get(message, fields.agents.localName);
  const agents: readonly unknown[] = Array.isArray(value) ? value : [value];
  if (agents.length === 0 || !agents.every(isAgent)) return undefined;
  const bytes = writeUsualAgents(fields.agents.number, agents);
  if (bytes === undefined || fields.others.length === 0) return bytes;
  const rest = create(desc);
  for (const { localName } of fields.others) Reflect.set(rest, localName, Reflect.get(message, localName));
  // In any order: what is written apart is read as one.
  return Buffer.concat([bytes, toBinary(desc, rest)]);
}

function isAgent(value: unknown): value is Agent {
  return isMessage(value, AgentSchema);
}
