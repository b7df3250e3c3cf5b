import { create, type DescMessage, fromBinary, type Message, type MessageInitShape } from "@bufbuild/protobuf";
import { DescriptorProtoSchema, FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { ServerReflectionRequestSchema } from "../../gen/grpc/reflection/v1/reflection_pb.ts";
import { AgentStatus, ExhaustReason } from "../../gen/harborforge/agents/v1/agent_pb.ts";
import {
  AgentBeatSchema,
  BatchGetAgentsRequestSchema,
  CreateAgentRequestSchema,
  GetAgentRequestSchema,
  HeartbeatRequestSchema,
  ListAgentsRequestSchema,
  ListAgentTransitionsRequestSchema,
  SendHeartbeatRequestSchema,
  UpdateAgentStatusRequestSchema,
  WatchAgentsRequestSchema,
} from "../../gen/harborforge/agents/v1/agent_service_pb.ts";
import {
  CreateUserRequestSchema,
  GetUserRequestSchema,
  ListUsersRequestSchema,
  UpdateUserRequestSchema,
} from "../../gen/harborforge/agents/v1/user_service_pb.ts";
import { Refusal } from "../../src/domain/errors.ts";
import { MAX_VIOLATIONS } from "../../src/domain/validation.ts";
import { compileRequestCheck, compileRuleCheck } from "../../src/rpc/validation/request-check.ts";

const NOW_SECONDS = 1_790_000_000n;
const DAY_SECONDS = 86_400n;

beforeAll(() => {
  vi.useFakeTimers({ toFake: ["Date"], now: Number(NOW_SECONDS) * 1_000 });
});
afterAll(() => {
  vi.useRealTimers();
});

/** The violations of a request: paths and sentences. */
function faults<Desc extends DescMessage>(desc: Desc, init: MessageInitShape<Desc>): string[] {
  return faultsOfMessage(desc, create(desc, init));
}

function faultsOfMessage(desc: DescMessage, message: Message): string[] {
  try {
    compileRuleCheck(desc)?.(message);
    return [];
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    expect(error.reason).toBe("INVALID_FIELD");
    return error.violations.map(({ field, description }) => `${field} ${description}`);
  }
}

/** C0, DEL and C1. */
function isControl(point: number): boolean {
  return point < 0x20 || (point >= 0x7f && point < 0xa0);
}

/** Text that must not reach logs, terminals or PostgreSQL. */
const HOSTILE: readonly (readonly [string, string])[] = [
  ["NUL", "a\u0000b"],
  ["a line break", "a\nb"],
  ["a carriage return at the end", "a\r"],
  ["a tab", "\ta"],
  ["an escape sequence", "\u001b[2J"],
  ["DEL", "a\u007f"],
  ["a C1 control", "\u009b31m"],
];

describe("text", () => {
  const ofAgent = (agentId: string) => faults(GetAgentRequestSchema, { key: { case: "agentId", value: agentId } });
  const ofUser = (init: MessageInitShape<typeof CreateUserRequestSchema>) =>
    faults(CreateUserRequestSchema, { username: "ada", ...init });

  it("is a valid name exactly if it is short enough and without controls", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary", maxLength: 140 }), (value) => {
        const points = Array.from(value);
        const controls = points.some((point) => isControl(point.codePointAt(0) ?? 0));
        expect(ofAgent(value).length === 0).toBe(points.length >= 1 && points.length <= 128 && !controls);
      }),
    );
  });

  it.each(["a", "é", "🤖"])("is measured in code points, whatever their size: %s", (point) => {
    expect(ofAgent(point.repeat(128))).toEqual([]);
    expect(ofAgent(point.repeat(129))).toEqual(["agent_id must be at most 128 characters"]);
    expect(ofUser({ displayName: point.repeat(256) })).toEqual([]);
    expect(ofUser({ displayName: point.repeat(257) })).toEqual(["display_name must be at most 256 characters"]);
    expect(ofUser({ requestId: point.repeat(64) })).toEqual([]);
    expect(ofUser({ requestId: point.repeat(65) })).toEqual(["request_id must be at most 64 characters"]);
  });

  it.each(HOSTILE)("must not contain %s", (_, value) => {
    const fault = "must not hold control characters";
    expect(ofAgent(value)).toEqual([`agent_id ${fault}`]);
    expect(ofUser({ username: value, displayName: value, requestId: value })).toEqual([
      `username ${fault}`,
      `display_name ${fault}`,
      `request_id ${fault}`,
    ]);
    expect(ofUser({ email: `${value}@b` })).toEqual([expect.stringMatching(/^email must be an address/)]);
  });

  it("of a megabyte is rejected without being repeated in the error", () => {
    expect(ofAgent("x".repeat(1_000_000))).toEqual(["agent_id must be at most 128 characters"]);
  });

  it("must be set where it is required", () => {
    expect(ofAgent("")).toEqual(["agent_id must be set: 1 to 128 characters"]);
    expect(faults(ListAgentTransitionsRequestSchema, { agentId: "" })).toEqual([
      "agent_id must be set: 1 to 128 characters",
    ]);
    expect(faults(ListAgentTransitionsRequestSchema, {})).toEqual([]);
  });
});

describe("an email", () => {
  const faultsOf = (email: string) => faults(UpdateUserRequestSchema, { id: 1n, email });

  it.each([
    "",
    "a@b",
    "ada@example.com",
    "ada+tag@[::1]",
    "ädä@例え.jp",
    "'@'",
    `${"a".repeat(250)}@b.c`,
  ])("may be %s", (email) => {
    expect(faultsOf(email)).toEqual([]);
  });

  it.each([
    "a",
    "@",
    "@b",
    "a@",
    "a@b@c",
    "a b@c",
    "a@b ",
    "a@\u00a0b",
    "a@\u2028b",
    "a@b\n",
    "a@b\u0000",
    `${"a".repeat(251)}@b.c`,
  ])("must not be %j", (email) => {
    expect(faultsOf(email)).toEqual([expect.stringMatching(/^email must /)]);
  });
});

describe("numbers", () => {
  it.each([-1, -2_147_483_648])("of page sizes must not be %i", (pageSize) => {
    const refused = ["page_size must be greater than or equal to 0"];
    expect(faults(ListUsersRequestSchema, { pageSize })).toEqual(refused);
    expect(faults(ListAgentsRequestSchema, { pageSize })).toEqual(refused);
    expect(faults(ListAgentTransitionsRequestSchema, { pageSize })).toEqual(refused);
  });

  it.each([0, 1, 1_000, 2_147_483_647])("of page sizes may be %i", (pageSize) => {
    expect(faults(ListUsersRequestSchema, { pageSize })).toEqual([]);
  });

  it("of rows are greater than 0", () => {
    const faultsOf = (value: bigint) => faults(GetUserRequestSchema, { key: { case: "id", value } });
    expect(faultsOf(1n)).toEqual([]);
    expect(faultsOf(2n ** 63n - 1n)).toEqual([]);
    expect(faultsOf(0n)).toEqual(["id must be greater than 0"]);
    expect(faultsOf(-(2n ** 63n))).toEqual(["id must be greater than 0"]);
  });

  it("of revisions are not negative", () => {
    expect(faults(WatchAgentsRequestSchema, { afterRevision: 0n })).toEqual([]);
    expect(faults(WatchAgentsRequestSchema, { afterRevision: -1n })).toEqual([
      "after_revision must be greater than or equal to 0",
    ]);
  });

  it("of enums are those of the contract", () => {
    const unknown = fromBinary(AgentBeatSchema, Uint8Array.of(0x10, 99)).status;
    const names =
      "AGENT_STATUS_IDLE, AGENT_STATUS_ON_CALL, AGENT_STATUS_BUSY, AGENT_STATUS_EXHAUSTED, AGENT_STATUS_OFFLINE";
    expect(faults(UpdateAgentStatusRequestSchema, { agentId: "a" })).toEqual([`status must be set: ${names}`]);
    expect(faults(UpdateAgentStatusRequestSchema, { agentId: "a", status: unknown })).toEqual([
      `status must be one of ${names}`,
    ]);
    const statuses = [AgentStatus.IDLE, unknown, AgentStatus.BUSY, AgentStatus.UNSPECIFIED];
    expect(faults(WatchAgentsRequestSchema, { filter: { statuses } })).toEqual([
      `filter.statuses[1] must be one of ${names}`,
      `filter.statuses[3] must be one of ${names}`,
    ]);
  });
});

describe("lists", () => {
  const ids = Array.from({ length: 1_000 }, (_, index) => `agent-${index}`);

  it("have up to 1,000 values, and longer ones are rejected without further checks", () => {
    expect(faults(BatchGetAgentsRequestSchema, { agentIds: ids })).toEqual([]);
    expect(faults(BatchGetAgentsRequestSchema, { agentIds: [...ids, ""] })).toEqual([
      "agent_ids must hold at most 1000 values",
    ]);
    const filter = {
      agentIds: [...ids, ""],
      userIds: new Array<bigint>(1_001).fill(0n),
      clawIdentifiers: [...ids, ""],
      statuses: new Array<AgentStatus>(1_001).fill(AgentStatus.UNSPECIFIED),
    };
    expect(faults(ListAgentsRequestSchema, { filter })).toEqual([
      "filter.agent_ids must hold at most 1000 values",
      "filter.user_ids must hold at most 1000 values",
      "filter.claw_identifiers must hold at most 1000 values",
      "filter.statuses must hold at most 1000 values",
    ]);
  });

  it("name each invalid value by its index, in the order of the contract", () => {
    const filter = { clawIdentifiers: ["\u0000"], userIds: [1n, 0n, 3n, -4n], agentIds: ["a", ""] };
    expect(faults(WatchAgentsRequestSchema, { afterRevision: -1n, filter })).toEqual([
      "filter.agent_ids[1] must be set: 1 to 128 characters",
      "filter.user_ids[1] must be greater than 0",
      "filter.user_ids[3] must be greater than 0",
      "filter.claw_identifiers[0] must not hold control characters",
      "after_revision must be greater than or equal to 0",
    ]);
  });

  it("of only invalid values give an error that fits into trailers", () => {
    const check = compileRuleCheck(BatchGetAgentsRequestSchema);
    const bad = create(BatchGetAgentsRequestSchema, { agentIds: ids.map(() => "\n".repeat(100)) });
    expect(() => check?.(bad)).toThrow(
      expect.objectContaining({
        violations: expect.toSatisfy((all: unknown[]) => all.length === MAX_VIOLATIONS),
        message: expect.stringMatching(/and 984 more$/),
      }),
    );
  });
});

describe("a oneof", () => {
  it("must be set", () => {
    expect(faults(GetUserRequestSchema, {})).toEqual(["key must be set: id, username, agent_id"]);
    expect(faults(GetAgentRequestSchema, {})).toEqual(["key must be set: agent_id, user_id"]);
  });
});

describe("fields that depend on each other", () => {
  it("are an agent and its claw", () => {
    const ofUser = (init: MessageInitShape<typeof CreateUserRequestSchema>) =>
      faults(CreateUserRequestSchema, { username: "ada", ...init });
    for (const agentId of [undefined, ""]) {
      expect(ofUser({ agentId, clawIdentifier: "c" })).toEqual(["agent_id must be set together with claw_identifier"]);
      for (const clawIdentifier of [undefined, ""]) expect(ofUser({ agentId, clawIdentifier })).toEqual([]);
    }
    for (const clawIdentifier of [undefined, ""]) {
      expect(ofUser({ agentId: "a", clawIdentifier })).toEqual(["claw_identifier must be set together with agent_id"]);
    }
    expect(ofUser({ agentId: "a", clawIdentifier: "c" })).toEqual([]);
  });

  it("are EXHAUSTED and its exhaustion", () => {
    const ofStatus = (init: MessageInitShape<typeof UpdateAgentStatusRequestSchema>) =>
      faults(UpdateAgentStatusRequestSchema, { agentId: "a", ...init });
    const exhaustion = { reason: ExhaustReason.BILLING };
    expect(ofStatus({ status: AgentStatus.EXHAUSTED, exhaustion })).toEqual([]);
    expect(ofStatus({ status: AgentStatus.EXHAUSTED })).toEqual(["exhaustion must be set with the status EXHAUSTED"]);
    for (const status of [AgentStatus.IDLE, AgentStatus.ON_CALL, AgentStatus.BUSY, AgentStatus.OFFLINE]) {
      expect(ofStatus({ status })).toEqual([]);
      expect(ofStatus({ status, exhaustion })).toEqual(["exhaustion must not be set without the status EXHAUSTED"]);
    }
    expect(ofStatus({ status: AgentStatus.EXHAUSTED, exhaustion: {} })).toEqual([
      "exhaustion.reason must be set: EXHAUST_REASON_RATE_LIMIT, EXHAUST_REASON_BILLING",
    ]);
  });

  it("exclude each other as OFFLINE and a hold", () => {
    const ofHold = (seconds: bigint, nanos: number) =>
      faults(UpdateAgentStatusRequestSchema, {
        agentId: "a",
        status: AgentStatus.OFFLINE,
        hold: { seconds, nanos },
      });
    expect(ofHold(0n, 0)).toEqual([]);
    expect(ofHold(0n, 1)).toEqual([expect.stringMatching(/^hold must not be set with OFFLINE/)]);
    expect(ofHold(60n, 0)).toEqual([expect.stringMatching(/^hold must not be set with OFFLINE/)]);
  });
});

describe("times", () => {
  const ofHold = (seconds: bigint, nanos: number) =>
    faults(UpdateAgentStatusRequestSchema, { agentId: "a", status: AgentStatus.BUSY, hold: { seconds, nanos } });
  const ofLease = (seconds: bigint, nanos: number) =>
    faults(SendHeartbeatRequestSchema, { leaseTtl: { seconds, nanos } });
  const ofBookmarks = (seconds: bigint, nanos: number) =>
    faults(WatchAgentsRequestSchema, { bookmarkInterval: { seconds, nanos } });
  const ofExhaustion = (recovery: MessageInitShape<typeof AgentBeatSchema>["exhaustion"]) =>
    faults(UpdateAgentStatusRequestSchema, {
      agentId: "a",
      status: AgentStatus.EXHAUSTED,
      exhaustion: { reason: ExhaustReason.BILLING, ...recovery },
    });
  const ofRetry = (seconds: bigint, nanos: number) =>
    ofExhaustion({ recovery: { case: "retryAfter", value: { seconds, nanos } } });
  const ofDeadline = (seconds: bigint, nanos: number) =>
    ofExhaustion({ recovery: { case: "recoveryAt", value: { seconds, nanos } } });

  it.each<[string, (seconds: bigint, nanos: number) => string[], [bigint, number][], [bigint, number][]]>([
    [
      "hold",
      ofHold,
      [
        [0n, 0],
        [3_600n, 0],
      ],
      [
        [3_600n, 1],
        [3_601n, 0],
        [0n, -1],
        [-1n, 0],
        [-1n, -1],
        [315_576_000_000n, 0],
      ],
    ],
    [
      "lease_ttl",
      ofLease,
      [
        [0n, 0],
        [90n, 0],
        [315_576_000_000n, 0],
      ],
      [
        [0n, -1],
        [-1n, 0],
      ],
    ],
    [
      "bookmark_interval",
      ofBookmarks,
      [
        [1n, 0],
        [300n, 0],
      ],
      [
        [0n, 999_999_999],
        [300n, 1],
        [0n, 0],
      ],
    ],
    [
      "exhaustion.retry_after",
      ofRetry,
      [
        [0n, 0],
        [366n * DAY_SECONDS, 0],
      ],
      [
        [366n * DAY_SECONDS, 1],
        [0n, -1],
      ],
    ],
    [
      "exhaustion.recovery_at",
      ofDeadline,
      [
        [NOW_SECONDS, 0],
        [0n, 0],
        [-62_135_596_800n, 0],
        [NOW_SECONDS + 366n * DAY_SECONDS, 0],
      ],
      [
        [NOW_SECONDS + 366n * DAY_SECONDS, 1],
        [NOW_SECONDS * 100n, 0],
        [253_402_300_799n, 999_999_999],
      ],
    ],
  ])("have the range of %s to the nanosecond", (field, faultsOf, good, bad) => {
    for (const [seconds, nanos] of good) expect(faultsOf(seconds, nanos), `${seconds} s ${nanos} ns`).toEqual([]);
    for (const [seconds, nanos] of bad) {
      expect(faultsOf(seconds, nanos), `${seconds} s ${nanos} ns`).toEqual([expect.stringContaining(`${field} must `)]);
    }
  });

  it.each<[bigint, number]>([
    [1n, -1],
    [-1n, 1],
    [0n, 1_000_000_000],
    [0n, -1_000_000_000],
    [315_576_000_001n, 0],
    [2n ** 63n - 1n, 0],
    [-(2n ** 63n), 0],
  ])("of %i s and %i ns are invalid durations, whatever their range", (seconds, nanos) => {
    for (const [field, faultsOf] of [
      ["hold", ofHold],
      ["lease_ttl", ofLease],
      ["bookmark_interval", ofBookmarks],
      ["exhaustion.retry_after", ofRetry],
    ] as const) {
      expect(faultsOf(seconds, nanos)).toEqual([`${field} must be a valid duration`]);
    }
  });

  it.each<[bigint, number]>([
    [-62_135_596_801n, 0],
    [253_402_300_800n, 0],
    [2n ** 63n - 1n, 0],
    [0n, -1],
    [0n, 1_000_000_000],
  ])("of %i s and %i ns are invalid timestamps", (seconds, nanos) => {
    expect(ofDeadline(seconds, nanos)).toEqual([
      "exhaustion.recovery_at must be a valid timestamp: years 1 to 9999, nanos 0 to 999999999",
    ]);
  });

  it("never make the rules themselves fail", () => {
    const int64 = fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n });
    fc.assert(
      fc.property(int64, fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }), (seconds, nanos) => {
        for (const faultsOf of [ofHold, ofLease, ofBookmarks, ofRetry, ofDeadline]) faultsOf(seconds, nanos);
      }),
    );
  });
});

describe("the check of requests", () => {
  const parsed = (desc: DescMessage, bytes: Uint8Array): Message | undefined => {
    try {
      return fromBinary(desc, bytes);
    } catch {
      return undefined;
    }
  };

  it("never throws another error, whatever a message contains", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 60 }), (bytes) => {
        for (const desc of [CreateAgentRequestSchema, UpdateAgentStatusRequestSchema, WatchAgentsRequestSchema]) {
          const message = parsed(desc, bytes);
          if (message !== undefined) faultsOfMessage(desc, message);
        }
      }),
    );
  });

  it("reports one violation of each field, and all violations together", () => {
    expect(faults(CreateUserRequestSchema, { email: "nobody", displayName: "\n".repeat(300) })).toEqual([
      "username must be set: 1 to 128 characters",
      expect.stringMatching(/^email must be an address/),
      "display_name must be at most 256 characters",
    ]);
  });

  it("skips messages without rules, and messages of heartbeat streams, which their handler checks", () => {
    expect(compileRequestCheck(ServerReflectionRequestSchema)).toBeUndefined();
    expect(compileRequestCheck(HeartbeatRequestSchema)).toBeUndefined();
    expect(compileRequestCheck(SendHeartbeatRequestSchema)).toBeDefined();
  });

  it("accepts types that contain themselves", () => {
    expect(compileRuleCheck(DescriptorProtoSchema)).toBeUndefined();
    expect(compileRuleCheck(FileDescriptorProtoSchema)).toBeUndefined();
  });
});
