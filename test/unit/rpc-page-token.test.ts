import { createHash } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import { AgentService, ListAgentsRequestSchema } from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { readPageToken, writePageToken } from "../../src/rpc/convert/page-token.ts";
import { fingerprint } from "../../src/rpc/convert/request-fingerprint.ts";

const { listAgents } = AgentService.method;
const REQUEST = create(ListAgentsRequestSchema, { pageSize: 5 });
const POSITION = { after: 2n ** 63n - 1n, asOf: 7n };
/** Version, position and check. */
const POSITION_END = 17;

/** A token of another version of this service, which includes its version in the check. */
function tokenOfVersion(version: number): string {
  const token = Buffer.from(writePageToken(listAgents, REQUEST, POSITION), "base64url");
  token.writeUInt8(version, 0);
  const check = createHash("sha256")
    .update(fingerprint(listAgents, REQUEST, ["pageSize", "pageToken"]))
    .update(token.subarray(0, POSITION_END))
    .digest();
  check.copy(token, POSITION_END, 0, token.length - POSITION_END);
  return token.toString("base64url");
}

describe("a page token", () => {
  it("decodes to the value that it encodes", () => {
    expect(readPageToken(listAgents, REQUEST, writePageToken(listAgents, REQUEST, POSITION))).toEqual(POSITION);
    expect(readPageToken(listAgents, REQUEST, tokenOfVersion(1))).toEqual(POSITION);
    expect(readPageToken(listAgents, REQUEST, "")).toBeUndefined();
  });

  it.each([0, 2, 255])("of version %i is rejected, although its own check is right", (version) => {
    expect(() => readPageToken(listAgents, REQUEST, tokenOfVersion(version))).toThrow(
      expect.objectContaining({ reason: "INVALID_PAGE_TOKEN" }),
    );
  });
});
