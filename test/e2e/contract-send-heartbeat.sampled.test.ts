import type { MessageInitShape } from "@bufbuild/protobuf";
import { durationMs } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import { describe, expect, test } from "vitest";
import { AgentStatus, ExhaustReason, TransitionCause } from "../../gen/harborforge/agents/v1/agent_pb.ts";
import {
  type AgentBeatResult,
  type AgentBeatSchema,
  SessionStart,
} from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { ErrorReason } from "../../gen/harborforge/agents/v1/error_reason_pb.ts";
import {
  aheadMs,
  expectAhead,
  expectInvalid,
  getAgent,
  newAgent,
  present,
  rateLimit,
  setStatus,
} from "../support/contract-steps.ts";
import { TESTED_PROTOCOLS, useClients } from "../support/protocol-clients.ts";
import { INTERVAL_MS, unique, useService } from "../support/service.ts";

const service = useService();
const { IDLE, ON_CALL, BUSY, EXHAUSTED, OFFLINE, UNSPECIFIED } = AgentStatus;
const LEASE_MS = 3 * INTERVAL_MS;

type Beat = MessageInitShape<typeof AgentBeatSchema>;

describe.concurrent.each(TESTED_PROTOCOLS)("$name", (protocol) => {
  const clients = useClients(protocol, service);
  const { agents } = clients;
  const send = async (...beats: Beat[]) => (await agents.sendHeartbeat({ beats })).results;
  const sendOne = async (beat: Beat): Promise<AgentBeatResult> => present((await send(beat))[0]);
  const causes = async (agentId: string) =>
    (await agents.listAgentTransitions({ agentId })).transitions.map(({ cause }) => cause);

  describe("SendHeartbeat", () => {
    test("renews leases and returns the pace; a heartbeat that changes nothing is no transition", async () => {
      const since = Date.now();
      const { agent, agentId } = await newAgent(clients);
      const { results, nextHeartbeatIn, leaseTtl } = await agents.sendHeartbeat({ beats: [{ agentId }] });
      expect(results).toMatchObject([{ agentId, status: IDLE, sequence: 0n, beatIndex: 0, revision: agent.revision }]);
      expect(results[0]?.error).toBeUndefined();
      const interval = durationMs(present(nextHeartbeatIn));
      expect(interval).toBeGreaterThan(0.8 * INTERVAL_MS);
      expect(interval).toBeLessThanOrEqual(INTERVAL_MS);
      expect(durationMs(present(leaseTtl))).toBe(LEASE_MS);
      const after = await getAgent(clients, agentId);
      expect(after).toMatchObject({ revision: agent.revision, status: IDLE });
      expectAhead(after.lastHeartbeat, 0, since);
      expectAhead(after.leaseExpiresAt, LEASE_MS, since);
    });

    test("applies reports", async () => {
      const { agent, agentId } = await newAgent(clients);
      const busy = await sendOne({ agentId, status: BUSY });
      expect(busy).toMatchObject({ status: BUSY });
      expect(busy.revision).toBeGreaterThan(agent.revision);
      const exhausted = await sendOne({ agentId, status: EXHAUSTED, exhaustion: rateLimit(600n) });
      expect(exhausted).toMatchObject({ status: EXHAUSTED, exhaustion: { reason: ExhaustReason.RATE_LIMIT } });
      const { recoveryAt } = await getAgent(clients, agentId);
      expect(exhausted.exhaustion?.recovery).toEqual({ case: "recoveryAt", value: recoveryAt });
      // A repeated report changes nothing; otherwise an agent that repeats itself would never recover.
      const again = await sendOne({ agentId, status: EXHAUSTED, exhaustion: rateLimit(600n) });
      expect(again).toMatchObject({ revision: exhausted.revision, exhaustion: exhausted.exhaustion });
      // A report of the agent takes precedence.
      expect(await sendOne({ agentId, status: ON_CALL })).toMatchObject({ status: ON_CALL });
      const { transitions } = await agents.listAgentTransitions({ agentId, newestFirst: true, pageSize: 1 });
      expect(transitions).toMatchObject([{ cause: TransitionCause.REPORT, actor: `agent:${agentId}` }]);
      expect((await getAgent(clients, agentId)).exhaustReason).toBe(ExhaustReason.UNSPECIFIED);
    });

    test("returns one result a beat, in order, and an invalid beat affects no other", async () => {
      const claw = unique("claw");
      const [one, two] = [await newAgent(clients, claw), await newAgent(clients, claw)];
      const elsewhere = await newAgent(clients);
      const missing = unique("agent");
      const beats: [Beat, Partial<AgentBeatResult> | ErrorReason][] = [
        [{ agentId: one.agentId, status: BUSY }, { status: BUSY }],
        [{ agentId: "" }, ErrorReason.INVALID_FIELD],
        [{ agentId: "x".repeat(129) }, ErrorReason.INVALID_FIELD],
        [{ agentId: missing, status: IDLE }, ErrorReason.AGENT_NOT_FOUND],
        [{ agentId: elsewhere.agentId, status: BUSY }, ErrorReason.WRONG_CLAW],
        [{ agentId: one.agentId, status: OFFLINE }, ErrorReason.INVALID_FIELD],
        [{ agentId: one.agentId, status: EXHAUSTED }, ErrorReason.INVALID_FIELD],
        [{ agentId: one.agentId, status: EXHAUSTED, exhaustion: {} }, ErrorReason.INVALID_FIELD],
        [{ agentId: one.agentId, exhaustion: rateLimit(1n) }, ErrorReason.INVALID_FIELD],
        [{ agentId: one.agentId, leaving: true, status: IDLE }, ErrorReason.INVALID_FIELD],
        [{ agentId: one.agentId, leaving: true, exhaustion: rateLimit(1n) }, ErrorReason.INVALID_FIELD],
        [{ agentId: one.agentId, knownRevision: -1n }, ErrorReason.INVALID_FIELD],
        [{ agentId: one.agentId, status: 99 as AgentStatus }, ErrorReason.INVALID_FIELD],
        [{ agentId: one.agentId, status: IDLE, sessionStart: SessionStart.FIRST }, ErrorReason.INVALID_FIELD],
        [{ agentId: one.agentId, status: IDLE, sessionStart: SessionStart.RESUME }, ErrorReason.INVALID_FIELD],
        [{ agentId: two.agentId, status: ON_CALL }, { status: ON_CALL }],
      ];
      const { results } = await agents.sendHeartbeat({ beats: beats.map(([beat]) => beat), clawIdentifier: claw });
      const codes: Partial<Record<ErrorReason, Code>> = {
        [ErrorReason.INVALID_FIELD]: Code.InvalidArgument,
        [ErrorReason.AGENT_NOT_FOUND]: Code.NotFound,
        [ErrorReason.WRONG_CLAW]: Code.FailedPrecondition,
      };
      expect(results).toMatchObject(
        beats.map(([{ agentId = "" }, expected], beatIndex) => ({
          agentId,
          beatIndex,
          ...(typeof expected === "object"
            ? expected
            : {
                status: UNSPECIFIED,
                revision: 0n,
                error: { reason: expected, code: codes[expected], message: expect.stringMatching(/\S/) },
              }),
        })),
      );
      expect((await getAgent(clients, one.agentId)).status).toBe(BUSY);
      expect((await getAgent(clients, elsewhere.agentId)).lastHeartbeat).toBeUndefined();
    });

    test("applies several beats of one agent in order, each a transition", async () => {
      const { agentId } = await newAgent(clients);
      const results = await send({ agentId, status: BUSY }, { agentId, status: IDLE }, { agentId, status: ON_CALL });
      expect(results.map(({ status }) => status)).toEqual([BUSY, IDLE, ON_CALL]);
      const { transitions } = await agents.listAgentTransitions({ agentId });
      expect(transitions.map(({ toStatus }) => toStatus)).toEqual([IDLE, BUSY, IDLE, ON_CALL]);
    });

    test("accepts up to 1,000 beats, and also none", async () => {
      const beats = Array.from({ length: 1_001 }, () => ({ agentId: "" }));
      await expectInvalid(agents.sendHeartbeat({ beats }), "beats");
      expect((await agents.sendHeartbeat({ beats: beats.slice(1) })).results).toHaveLength(1_000);
      expect((await agents.sendHeartbeat({})).results).toEqual([]);
    });

    test("grants the requested lease, from the server's own to 1 hour", async () => {
      const since = Date.now();
      const { agentId } = await newAgent(clients);
      const granted = async (seconds: bigint) => {
        const { leaseTtl } = await agents.sendHeartbeat({ beats: [{ agentId }], leaseTtl: { seconds } });
        const { leaseExpiresAt } = await getAgent(clients, agentId);
        const ms = durationMs(present(leaseTtl));
        expectAhead(leaseExpiresAt, ms, since);
        return ms;
      };
      expect(await granted(300n)).toBe(300_000);
      expect(await granted(7_200n)).toBe(3_600_000);
      // The lease of the newest beat counts, also when it is shorter.
      expect(await granted(1n)).toBe(LEASE_MS);
      await expectInvalid(
        agents.sendHeartbeat({ leaseTtl: { seconds: -1n }, clawIdentifier: "\n" }),
        "claw_identifier",
        "lease_ttl",
      );
    });

    test("brings an offline agent back, with or without a report", async () => {
      const { agentId } = await newAgent(clients);
      await setStatus(clients, agentId, OFFLINE);
      expect(await sendOne({ agentId })).toMatchObject({ status: IDLE });
      expect((await causes(agentId)).at(-1)).toBe(TransitionCause.HEARTBEAT);
      await setStatus(clients, agentId, OFFLINE);
      expect(await sendOne({ agentId, status: ON_CALL })).toMatchObject({ status: ON_CALL });
      expect((await causes(agentId)).at(-1)).toBe(TransitionCause.REPORT);
    });

    test("brings an agent that went offline exhausted back as exhausted", async () => {
      const { agentId } = await newAgent(clients);
      const { exhaustion } = await sendOne({ agentId, status: EXHAUSTED, exhaustion: rateLimit(600n) });
      expect(await sendOne({ agentId, leaving: true })).toMatchObject({ status: OFFLINE, exhaustion });
      expect(await sendOne({ agentId })).toMatchObject({ status: EXHAUSTED, exhaustion });
    });

    test("applies a goodbye", async () => {
      const { agentId } = await newAgent(clients);
      const left = await sendOne({ agentId, leaving: true });
      expect(left.status).toBe(OFFLINE);
      expect((await causes(agentId)).at(-1)).toBe(TransitionCause.GOODBYE);
      expect((await getAgent(clients, agentId)).leaseExpiresAt).toBeUndefined();
      expect(await sendOne({ agentId, leaving: true })).toMatchObject({ status: OFFLINE, revision: left.revision });
    });
  });

  describe("a service's change", () => {
    test("takes precedence over a report that does not know of it, which still renews the lease", async () => {
      const { agentId } = await newAgent(clients);
      const { revision } = await setStatus(clients, agentId, BUSY);
      const held = await sendOne({ agentId, status: IDLE });
      expect(held).toMatchObject({
        status: BUSY,
        revision,
        error: { code: Code.Aborted, reason: ErrorReason.REPORT_OUTDATED },
      });
      const agent = await getAgent(clients, agentId);
      expect(agent).toMatchObject({ status: BUSY, revision });
      expect(aheadMs(agent.leaseExpiresAt)).toBeLessThanOrEqual(LEASE_MS);
      expect(agent.lastHeartbeat).toBeDefined();
    });

    test("yields to a report that knows of it", async () => {
      const { agentId, agent } = await newAgent(clients);
      const { revision } = await setStatus(clients, agentId, BUSY);
      const stale = await sendOne({ agentId, status: ON_CALL, knownRevision: agent.revision });
      expect(stale.error?.reason).toBe(ErrorReason.REPORT_OUTDATED);
      const known = await sendOne({ agentId, status: ON_CALL, knownRevision: revision });
      expect(known.status).toBe(ON_CALL);
      expect(known.error).toBeUndefined();
      // The hold is over: later reports need not know of the change.
      expect((await sendOne({ agentId, status: IDLE })).error).toBeUndefined();
    });

    test("is confirmed by the same report, which ends the hold", async () => {
      const { agentId } = await newAgent(clients);
      const { revision } = await setStatus(clients, agentId, BUSY);
      expect(await sendOne({ agentId, status: BUSY })).toMatchObject({ status: BUSY, revision });
      const idle = await sendOne({ agentId, status: IDLE });
      expect(idle).toMatchObject({ status: IDLE });
      expect(idle.error).toBeUndefined();
    });

    test("does not take precedence without a hold, or after it", async () => {
      const { agentId } = await newAgent(clients);
      await agents.updateAgentStatus({ agentId, status: BUSY, hold: {} });
      expect((await sendOne({ agentId, status: IDLE })).error).toBeUndefined();
      await agents.updateAgentStatus({ agentId, status: BUSY, hold: { nanos: 30_000_000 } });
      await expect
        .poll(async () => (await sendOne({ agentId, status: IDLE })).status, { interval: 10, timeout: 5_000 })
        .toBe(IDLE);
    });

    test("to exhausted takes precedence until recovery_at over reports of the same reason", async () => {
      const { agentId } = await newAgent(clients);
      const exhaustion = rateLimit(1_800n);
      const { agent } = await agents.updateAgentStatus({ agentId, status: EXHAUSTED, exhaustion });
      const held = await sendOne({ agentId, status: IDLE });
      expect(held).toMatchObject({ status: EXHAUSTED, error: { reason: ErrorReason.REPORT_OUTDATED } });
      expect(held.exhaustion?.recovery).toEqual({ case: "recoveryAt", value: agent?.recoveryAt });
      const billing = { reason: ExhaustReason.BILLING };
      expect((await sendOne({ agentId, status: EXHAUSTED, exhaustion: billing })).error?.reason).toBe(
        ErrorReason.REPORT_OUTDATED,
      );
      expect(await sendOne({ agentId, status: EXHAUSTED, exhaustion })).toMatchObject({ revision: agent?.revision });
      expect(await sendOne({ agentId, status: IDLE })).toMatchObject({ status: IDLE });
    });

    test("never holds off a goodbye", async () => {
      const { agentId } = await newAgent(clients);
      await setStatus(clients, agentId, BUSY);
      const left = await sendOne({ agentId, leaving: true });
      expect(left).toMatchObject({ status: OFFLINE });
      expect(left.error).toBeUndefined();
    });
  });
});
