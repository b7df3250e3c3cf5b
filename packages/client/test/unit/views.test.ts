import { create } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import {
  AGENT_STATUSES,
  ERROR_REASONS,
  EXHAUST_REASONS,
  IF_UNAVAILABLE,
  TRANSITION_CAUSES,
  WAKE_OUTCOMES,
  WAKE_REASONS,
  WAKE_REPLY_TYPES,
  WAKE_STATES,
} from "../../../../common/contract/enum-names.ts";
import {
  CAUSE_VALUES,
  CHANGE_TYPE_VALUES,
  EXHAUST_REASON_VALUES,
  IF_UNAVAILABLE_VALUES,
  SESSION_START_VALUES,
  STATUS_VALUES,
  WAKE_OUTCOME_VALUES,
  WAKE_REASON_VALUES,
  WAKE_REPLY_TYPE_VALUES,
  WAKE_STATE_VALUES,
} from "../../../../common/contract/enum-values.ts";
import { timestampOf } from "../../../../common/contract/timestamps.ts";
import {
  AgentSchema,
  AgentStatusSchema,
  AgentTransitionSchema,
  ExhaustReasonSchema,
  TransitionCauseSchema,
  WakeStateSchema,
} from "../../../../gen/harborforge/agents/v1/agent_pb.ts";
import { AgentChangeTypeSchema, SessionStartSchema } from "../../../../gen/harborforge/agents/v1/agent_service_pb.ts";
import { ErrorReasonSchema } from "../../../../gen/harborforge/agents/v1/error_reason_pb.ts";
import {
  IfUnavailableSchema,
  WakeOutcomeSchema,
  WakeReasonSchema,
  WakeReplyTypeSchema,
} from "../../../../gen/harborforge/agents/v1/wake_pb.ts";
import { agentView, exactViews, transitionView } from "../../src/views.ts";

const at = (ms: number) => ({ seconds: BigInt(Math.floor(ms / 1_000)), nanos: (ms % 1_000) * 1_000_000 + 999_000 });

describe("a view", () => {
  it("has instants as dates, rounded down to the millisecond", () => {
    const message = create(AgentSchema, {
      agentId: "a",
      status: 4,
      exhaustReason: 1,
      recoveryAt: at(1_790_000_000_001),
      exhaustedAt: at(1_790_000_000_002),
      createdAt: at(1_790_000_000_003),
      statusChangedAt: at(1_790_000_000_004),
      lastHeartbeat: at(1_790_000_000_005),
      leaseExpiresAt: at(1_790_000_000_006),
      suspectSince: at(1_790_000_000_007),
    });
    expect(agentView(message)).toMatchObject({
      status: "exhausted",
      exhaustion: { reason: "rate_limit", recoveryAt: new Date(1_790_000_000_001) },
      exhaustedAt: new Date(1_790_000_000_002),
      createdAt: new Date(1_790_000_000_003),
      statusChangedAt: new Date(1_790_000_000_004),
      lastHeartbeat: new Date(1_790_000_000_005),
      leaseExpiresAt: new Date(1_790_000_000_006),
      suspectSince: new Date(1_790_000_000_007),
    });
    expect(exactViews.agent(message).suspectSince).toBe(1_790_000_000_007_999);
    const transition = create(AgentTransitionSchema, { occurredAt: at(1_790_000_000_001), toStatus: 1 });
    expect(transitionView(transition).occurredAt).toEqual(new Date(1_790_000_000_001));
  });

  it("has no instant where the message has none", () => {
    const { suspectSince, lastHeartbeat, leaseExpiresAt, exhaustion } = agentView(create(AgentSchema, { status: 1 }));
    expect([suspectSince, lastHeartbeat, leaseExpiresAt, exhaustion]).toEqual([
      undefined,
      undefined,
      undefined,
      undefined,
    ]);
  });
});

describe("values that only newer services know", () => {
  it("are unknown, also if an older service sends UNSPECIFIED for them", () => {
    const onClaw = { fromClawIdentifier: "c", toClawIdentifier: "c" };
    for (const number of [0, 99]) {
      const agent = create(AgentSchema, { agentId: "a", recoveryAt: timestampOf(60_000_000) });
      expect(agentView(Object.assign(agent, { status: number, exhaustReason: number }))).toMatchObject({
        status: "unknown",
        exhaustion: { reason: "unknown", recoveryAt: new Date(60_000) },
      });
      const transition = create(AgentTransitionSchema, onClaw);
      const values = { fromStatus: number, toStatus: number, cause: number };
      expect(transitionView(Object.assign(transition, values))).toMatchObject({
        from: "unknown",
        to: "unknown",
        cause: "unknown",
      });
    }
    const deletion = create(AgentTransitionSchema, { fromStatus: 1, cause: 8, fromClawIdentifier: "c" });
    expect(transitionView(deletion)).toMatchObject({ from: "idle", to: undefined, cause: "deleted" });
  });
});

describe("the names of the contract", () => {
  it.each([
    ["AgentStatus", AgentStatusSchema, AGENT_STATUSES, STATUS_VALUES],
    ["ExhaustReason", ExhaustReasonSchema, EXHAUST_REASONS, EXHAUST_REASON_VALUES],
    ["TransitionCause", TransitionCauseSchema, TRANSITION_CAUSES, CAUSE_VALUES],
    ["AgentChangeType", AgentChangeTypeSchema, ["entered", "updated", "left"], CHANGE_TYPE_VALUES],
    ["WakeState", WakeStateSchema, WAKE_STATES, WAKE_STATE_VALUES],
    ["WakeReason", WakeReasonSchema, WAKE_REASONS, WAKE_REASON_VALUES],
    ["WakeOutcome", WakeOutcomeSchema, WAKE_OUTCOMES, WAKE_OUTCOME_VALUES],
    ["WakeReplyType", WakeReplyTypeSchema, WAKE_REPLY_TYPES, WAKE_REPLY_TYPE_VALUES],
    ["IfUnavailable", IfUnavailableSchema, IF_UNAVAILABLE, IF_UNAVAILABLE_VALUES],
    ["SessionStart", SessionStartSchema, ["first", "anew", "resume"], SESSION_START_VALUES],
  ] as const)("of %s have its numbers, and are complete", (_, schema, names, values) => {
    const prefix = schema.sharedPrefix ?? "";
    const contract = schema.values.flatMap(({ name, number }) =>
      number === 0 ? [] : [[name.slice(prefix.length).toLowerCase(), number] as const],
    );
    expect(Object.fromEntries(contract)).toEqual(values);
    expect(contract.map(([name]) => name)).toEqual([...names]);
  });

  it("of ErrorReason are complete, and in the order of its numbers", () => {
    const contract = ErrorReasonSchema.values.map(({ name }) => name.replace("ERROR_REASON_", ""));
    expect(contract).toEqual(["UNSPECIFIED", ...ERROR_REASONS]);
    expect(ErrorReasonSchema.values.map(({ number }) => number)).toEqual(contract.map((__, index) => index));
  });
});
