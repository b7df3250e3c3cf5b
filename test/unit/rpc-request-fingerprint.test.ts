import { create, fromBinary, fromJson, toBinary, toJson } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import {
  AgentService,
  DeleteAgentRequestSchema,
  ListAgentsRequestSchema,
  MoveAgentRequestSchema,
} from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { fingerprint, type Ignored } from "../../src/rpc/convert/request-fingerprint.ts";

const { moveAgent, deleteAgent, listAgents } = AgentService.method;

const MOVE = create(MoveAgentRequestSchema, { agentId: "a", clawIdentifier: "claw-1", requestId: "one" });

const hexOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");
const moved = (request = MOVE, ignored: readonly Ignored[] = ["requestId"]): string =>
  hexOf(fingerprint(moveAgent, request, ignored));

describe("the fingerprint of a request", () => {
  it("is the same in every encoding", () => {
    const binary = fromBinary(MoveAgentRequestSchema, toBinary(MoveAgentRequestSchema, MOVE));
    const json = fromJson(MoveAgentRequestSchema, toJson(MoveAgentRequestSchema, MOVE));
    expect([moved(binary), moved(json)]).toEqual([moved(), moved()]);
  });

  it("does not depend on fields that this server does not know", () => {
    // Field 1,000, a varint.
    const unknown = Buffer.from([0xc0, 0x3e, 0x01]);
    const newer = fromBinary(MoveAgentRequestSchema, Buffer.concat([toBinary(MoveAgentRequestSchema, MOVE), unknown]));
    expect(newer.$unknown).toHaveLength(1);
    expect(moved(newer)).toBe(moved());
  });

  it("does not depend on excluded fields, and leaves the request unchanged", () => {
    const again = create(MoveAgentRequestSchema, { ...MOVE, requestId: "two" });
    expect(moved(again)).toBe(moved());
    expect(again.requestId).toBe("two");
    expect(moved(again, [])).not.toBe(moved(MOVE, []));
  });

  it("differs for other content", () => {
    const others = [
      create(MoveAgentRequestSchema, { ...MOVE, agentId: "b" }),
      create(MoveAgentRequestSchema, { ...MOVE, clawIdentifier: "claw-2" }),
      create(MoveAgentRequestSchema, { agentId: "a" }),
    ].map((request) => moved(request));
    expect(new Set([moved(), ...others]).size).toBe(4);
  });

  it("differs for another method, although the bytes of the request are the same", () => {
    const deletion = hexOf(fingerprint(deleteAgent, create(DeleteAgentRequestSchema, { agentId: "a" }), ["requestId"]));
    expect(moved(create(MoveAgentRequestSchema, { agentId: "a" }))).not.toBe(deletion);
  });

  it("accepts excluded fields that a request does not have", () => {
    const list = create(ListAgentsRequestSchema, { pageSize: 5, pageToken: "token" });
    const whole = create(ListAgentsRequestSchema, {});
    const ignored: Ignored[] = ["requestId", "pageSize", "pageToken"];
    expect(hexOf(fingerprint(listAgents, list, ignored))).toBe(hexOf(fingerprint(listAgents, whole, ignored)));
  });
});
