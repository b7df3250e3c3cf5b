import { once } from "node:events";
import { createServer } from "node:http2";
import type { AddressInfo } from "node:net";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { microsOf, timestampOf } from "../../common/contract/timestamps.ts";
import { TransitionCause } from "../../gen/harborforge/agents/v1/agent_pb.ts";
import {
  AgentService,
  type ListAgentTransitionsRequest,
  type ListIncidentsRequest,
} from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { type CliResult, runCli } from "../support/cli.ts";
import { unique, useService } from "../support/service.ts";

const service = useService();
const SINCE = Date.parse("2026-11-22T22:30:00Z") * 1_000;

/** A service that notes its requests, and has two incidents. */
const requests: { transitions: ListAgentTransitionsRequest[]; incidents: ListIncidentsRequest[] } = {
  transitions: [],
  incidents: [],
};
const server = createServer(
  connectNodeAdapter({
    routes: ({ service: serve }) =>
      serve(AgentService, {
        listAgentTransitions(request) {
          requests.transitions.push(request);
          return {};
        },
        listIncidents(request) {
          requests.incidents.push(request);
          const silent = {
            incidentId: "i-2",
            clawIdentifiers: ["claw-\u202eb"],
            since: timestampOf(SINCE),
            agents: 12n,
          };
          const ended = {
            ...{
              incidentId: "i-1",
              clawIdentifiers: ["claw-a"],
              since: timestampOf(SINCE),
              agents: 3n,
              agentsBack: 2n,
            },
            ...{ endedAt: timestampOf(SINCE + 60_000_000), lastHeartbeat: timestampOf(SINCE - 30_000_000) },
          };
          return request.pageToken === ""
            ? { incidents: [silent], nextPageToken: "next" }
            : { incidents: [ended], nextPageToken: "" };
        },
      }),
  }),
);
let address = "";
beforeAll(async () => {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port }: Pick<AddressInfo, "port"> = Object(server.address());
  address = `127.0.0.1:${port}`;
});
afterAll(() => void server.close());

const noted = (...args: string[]): Promise<CliResult> => runCli(args, { HARBORFORGE_ADDRESS: address });

describe("agents transitions", () => {
  test("asks for causes, a claw, a time and an incident", async () => {
    const flags = ["--cause", "lease_expired", "--cause", "goodbye", "--claw", "claw-a", "--incident", "i-1"];
    await noted("agents", "transitions", "bob-1", ...flags, "--since", "2026-11-22T22:30:00Z");
    const request = requests.transitions.at(-1);
    expect(request).toMatchObject({
      agentId: "bob-1",
      causes: [TransitionCause.LEASE_EXPIRED, TransitionCause.GOODBYE],
      clawIdentifier: "claw-a",
      incidentId: "i-1",
      newestFirst: true,
    });
    expect(request?.since === undefined ? undefined : microsOf(request.since)).toBe(SINCE);
    await noted("agents", "transitions");
    const all = requests.transitions.at(-1);
    expect([all?.causes, all?.clawIdentifier, all?.since, all?.incidentId]).toEqual([
      [],
      undefined,
      undefined,
      undefined,
    ]);
  });

  test("takes a time as how long ago it was, too", async () => {
    const before = Date.now();
    await noted("agents", "transitions", "--since", "2h");
    const after = Date.now();
    const { since } = requests.transitions.at(-1) ?? {};
    const ms = since === undefined ? 0 : microsOf(since) / 1_000 + 2 * 3_600_000;
    expect(ms).toBeGreaterThanOrEqual(before);
    expect(ms).toBeLessThanOrEqual(after);
    for (const wrong of ["yesterday", "2026-11-22", "99999999h", ""]) {
      const refused = await noted("agents", "transitions", "--since", wrong);
      expect(refused).toMatchObject({ code: 2, stderr: expect.stringContaining("such as 90s or 2h, or a time") });
    }
    expect(await noted("agents", "transitions", "--cause", "boredom")).toMatchObject({ code: 2 });
  });

  test("gets the transitions that match, from a real service", async () => {
    const [agentId, claw, other] = [unique("agent"), unique("claw"), unique("claw")];
    const cli = (...args: string[]) => runCli(args, { HARBORFORGE_ADDRESS: service().addresses.grpc });
    await cli("users", "create", unique("user"), "--agent-id", agentId, "--claw", claw);
    await cli("agents", "status", agentId, "busy");
    await cli("agents", "move", agentId, other);
    const causes = async (...flags: string[]): Promise<unknown[]> => {
      const { stdout } = await cli("agents", "transitions", agentId, "--oldest-first", "-o", "jsonl", ...flags);
      return stdout.split("\n").flatMap((line): unknown[] => (line === "" ? [] : [JSON.parse(line).cause]));
    };
    const [created, status, moved] = ["CREATED", "SERVICE", "MOVED"].map((cause) => `TRANSITION_CAUSE_${cause}`);
    expect(await causes()).toEqual([created, status, moved]);
    expect(await causes("--cause", "moved", "--cause", "created")).toEqual([created, moved]);
    expect(await causes("--claw", other)).toEqual([moved]);
    expect(await causes("--since", "1h", "--claw", claw)).toEqual([created, status, moved]);
    expect(await causes("--since", "2100-01-01T00:00:00Z")).toEqual([]);
    expect(await causes("--incident", "no-such")).toEqual([]);
    expect(await cli("incidents", "--claw", claw)).toMatchObject({ code: 0, stderr: "There are no such incidents.\n" });
  });
});

describe("incidents", () => {
  test("are a table of claws, with those that are still silent", async () => {
    const { code, stdout } = await noted("incidents", "--claw", "claw-a");
    expect(code).toBe(0);
    const [heading, silent, ended] = stdout.split("\n");
    expect(heading).toMatch(/^INCIDENT +CLAW +SINCE +ENDED +AGENTS +BACK +HEARTBEAT$/);
    expect(silent).toMatch(/^i-2 +claw-\\u\{202e\}b +.+ silent +12 +0$/);
    expect(ended).toMatch(/^i-1 +claw-a +.+ +3 +2 +.+$/);
    expect(requests.incidents.map(({ clawIdentifier, pageToken }) => [clawIdentifier, pageToken]).slice(-2)).toEqual([
      ["claw-a", ""],
      ["claw-a", "next"],
    ]);
  });

  test("are the contract's JSON for programs, and as many as --limit asks for", async () => {
    const { stdout } = await noted("incidents", "-o", "json");
    expect(JSON.parse(stdout)).toEqual({
      incidents: [
        expect.objectContaining({ incidentId: "i-2", agents: "12" }),
        expect.objectContaining({ agentsBack: "2" }),
      ],
    });
    const first = await noted("incidents", "-o", "jsonl", "--limit", "1");
    expect(first.stdout.split("\n")).toHaveLength(2);
  });
});
