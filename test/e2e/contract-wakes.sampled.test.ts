import { durationFromMs, timestampFromMs } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import { describe, expect, test } from "vitest";
import { AgentStatus, TransitionCause, WakeState } from "../../gen/harborforge/agents/v1/agent_pb.ts";
import { ErrorReason } from "../../gen/harborforge/agents/v1/error_reason_pb.ts";
import {
  IfUnavailable,
  WakeOutcome,
  WakeReason,
  WakeReplyType,
  type WakeUpdate,
} from "../../gen/harborforge/agents/v1/wake_pb.ts";
import {
  expectInvalid,
  expectInvalidToken,
  expectRefusal,
  expectReusedRequestId,
  getAgent,
  newAgent,
  present,
} from "../support/contract-steps.ts";
import { HeartbeatStream, StreamReader } from "../support/contract-streams.ts";
import { GRPC_JS, TESTED_PROTOCOLS, useClients } from "../support/protocol-clients.ts";
import { unique, useService } from "../support/service.ts";

const service = useService();
const target = (agentId: string) => ({ case: "agentId", value: agentId }) as const;
const textOf = (wake: { readonly payload: Uint8Array } | undefined) => new TextDecoder().decode(wake?.payload);
const soon = () => timestampFromMs(Date.now() + 60_000);

describe.concurrent.each(TESTED_PROTOCOLS)("$name", (protocol) => {
  const clients = useClients(protocol, service);
  // Streams of both directions need HTTP/2: the agent always speaks gRPC.
  const claw = useClients(GRPC_JS, service);
  const { wakes } = clients;

  /** A stream that takes wakes, and holds a new agent. */
  async function newTaker(options: { takesWakes?: boolean } = {}) {
    const bound = await newAgent(clients);
    const stream = new HeartbeatStream(claw);
    await stream.beat({
      instanceId: "process-1",
      generation: 1n,
      takesWakes: true,
      beats: [{ agentId: bound.agentId }],
      ...options,
    });
    return { ...bound, stream, [Symbol.asyncDispose]: () => stream[Symbol.asyncDispose]() };
  }

  const updatesOf = (stream: HeartbeatStream): readonly WakeUpdate[] =>
    stream.messages.flatMap(({ wakeUpdates }) => wakeUpdates);

  async function update(stream: HeartbeatStream, wakeId: string, state: WakeState): Promise<WakeUpdate> {
    const found = () => updatesOf(stream).find((one) => one.wakeId === wakeId && one.state === state);
    await stream.until(`${wakeId} is in state ${state}`, () => found() !== undefined);
    return present(found());
  }

  const reply = async (
    stream: HeartbeatStream,
    { agentId, wakeId, offerRevision }: WakeUpdate,
    type: WakeReplyType,
    more: object = {},
  ) => {
    const results = await stream.beat({
      beats: [{ agentId, wakeReplies: [{ wakeId, offerRevision, type, ...more }] }],
    });
    return present(results[0]);
  };

  test("WakeAgent offers a wake to the stream that holds the agent, and its caller follows it to the outcome", async () => {
    await using taker = await newTaker();
    const { agentId, stream } = taker;
    const wakeId = unique("wake");
    const payload = new TextEncoder().encode("slot 4711");
    const { wake, agent } = await wakes.wakeAgent({ wakeId, target: target(agentId), expiresAt: soon(), payload });
    expect(wake).toMatchObject({
      wakeId,
      agentId,
      state: WakeState.OFFERED,
      reason: WakeReason.UNSPECIFIED,
      claim: AgentStatus.BUSY,
      ifUnavailable: IfUnavailable.REFUSE,
      answerWithin: { seconds: 30n },
      maxOffers: 3,
      offers: 1,
    });
    expect(textOf(wake)).toBe("slot 4711");
    expect(agent).toMatchObject({ status: AgentStatus.BUSY, wakeId, wakeState: WakeState.OFFERED });
    await using following = new StreamReader((signal) => wakes.followWake({ wakeId }, { signal }));
    await following.until("the first state", () => following.messages.length > 0);

    const offer = await update(stream, wakeId, WakeState.OFFERED);
    expect(offer).toMatchObject({ agentId, offerRevision: wake?.offerRevision, cancelRequested: false });
    expect(textOf(offer)).toBe("slot 4711");
    expect(await reply(stream, offer, WakeReplyType.ACCEPT)).toMatchObject({
      wakeResults: [{ wakeId, state: WakeState.ACCEPTED }],
    });
    const { wake: cancelled } = await wakes.cancelWake({ wakeId, note: "moved" });
    expect(cancelled).toMatchObject({ state: WakeState.ACCEPTED, cancelNote: "moved" });
    expect(cancelled?.cancelRequestedAt).toBeDefined();
    await stream.until("the request to stop", () => updatesOf(stream).some(({ cancelRequested }) => cancelRequested));
    const stopped = { outcome: WakeOutcome.STOPPED, note: "half done" };
    expect(await reply(stream, offer, WakeReplyType.FINISHED, stopped)).toMatchObject({
      status: AgentStatus.IDLE,
      wakeResults: [{ wakeId, state: WakeState.FINISHED }],
    });
    await following.end();
    const last = following.messages.at(-1)?.wake;
    expect(last).toMatchObject({ state: WakeState.FINISHED, ...stopped, acceptedBy: "process-1" });
    expect(textOf(last)).toBe("");
    expect((await wakes.getWake({ wakeId })).wake).toEqual(last);

    const { transitions } = await clients.agents.listAgentTransitions({ agentId });
    const changes = transitions.filter((one) => one.wakeId === wakeId);
    expect(changes.map(({ cause, wakeState }) => [cause, wakeState])).toEqual([
      [TransitionCause.WAKE, WakeState.OFFERED],
      [TransitionCause.WAKE, WakeState.ACCEPTED],
      [TransitionCause.WAKE, WakeState.ACCEPTED],
      [TransitionCause.WAKE, WakeState.FINISHED],
    ]);
    expect(await getAgent(clients, agentId)).toMatchObject({ wakeId: "", wakeState: WakeState.UNSPECIFIED });
  });

  test("WakeAgent refuses with the reason, and queues on request", async () => {
    const { agentId } = await newAgent(clients);
    const request = { wakeId: unique("wake"), target: target(agentId), expiresAt: soon() };
    await expectRefusal(wakes.wakeAgent(request), Code.FailedPrecondition, "WAKES_NOT_TAKEN");
    const queued = { ...request, ifUnavailable: IfUnavailable.QUEUE };
    const { wake } = await wakes.wakeAgent(queued);
    expect(wake).toMatchObject({
      state: WakeState.QUEUED,
      reason: WakeReason.NO_SESSION,
      offers: 0,
      offerRevision: 0n,
    });
    expect((await wakes.wakeAgent(queued)).wake).toEqual(wake);
    const other = { ...queued, maxOffers: 5 };
    await expectRefusal(wakes.wakeAgent(other), Code.AlreadyExists, "WAKE_ID_TAKEN", {
      metadata: { wakeId: request.wakeId },
    });
    await clients.agents.updateAgentStatus({ agentId, status: AgentStatus.ON_CALL });
    await expectRefusal(
      wakes.wakeAgent({ ...request, wakeId: unique("wake") }),
      Code.FailedPrecondition,
      "AGENT_ON_CALL",
    );
    const nobody = unique("nobody");
    await expectRefusal(
      wakes.wakeAgent({ ...request, wakeId: unique("wake"), target: target(nobody) }),
      Code.NotFound,
      "AGENT_NOT_FOUND",
      { metadata: { agentId: nobody } },
    );
    const past = timestampFromMs(Date.now() - 60_000);
    await expectRefusal(
      wakes.wakeAgent({ ...queued, wakeId: unique("wake"), expiresAt: past }),
      Code.FailedPrecondition,
      "WAKE_EXPIRED",
      { metadata: { now: expect.any(String) } },
    );
    expect((await wakes.cancelWake({ wakeId: request.wakeId })).wake).toMatchObject({ state: WakeState.CANCELLED });
    expect((await wakes.cancelWake({ wakeId: request.wakeId })).wake).toMatchObject({ state: WakeState.CANCELLED });
  });

  test("rejects what breaks the rules, by field", async () => {
    const valid = { wakeId: "w", target: target("a"), expiresAt: soon() };
    await expectInvalid(wakes.wakeAgent({}), "wake_id", "target", "expires_at");
    await expectInvalid(wakes.wakeAgent({ ...valid, claim: AgentStatus.IDLE }), "claim");
    await expectInvalid(wakes.wakeAgent({ ...valid, payload: new Uint8Array(4_097) }), "payload");
    await expectInvalid(wakes.wakeAgent({ ...valid, answerWithin: durationFromMs(999) }), "answer_within");
    await expectInvalid(wakes.wakeAgent({ ...valid, maxOffers: 11 }), "max_offers");
    const far = timestampFromMs(Date.now() + 32 * 24 * 3_600_000);
    await expectInvalid(wakes.wakeAgent({ ...valid, expiresAt: far }), "expires_at");
    await expectInvalid(wakes.cancelWake({ wakeId: "w", note: "é".repeat(513) }), "note");
    await expectInvalid(wakes.listWakes({ states: [WakeState.UNSPECIFIED] }), "states[0]");
    await expectInvalid(wakes.pauseWakes({}), "target");
    await expectInvalid(wakes.pauseWakes({ target: target("a"), note: "a\0b" }), "note");
    await expectInvalidToken(wakes.listWakes({ pageToken: "x" }));
    const unknown = unique("wake");
    for (const call of [wakes.getWake, wakes.cancelWake]) {
      const missing = { metadata: { wakeId: unknown } };
      await expectRefusal(call({ wakeId: unknown }), Code.NotFound, "WAKE_NOT_FOUND", missing);
    }
    await using following = new StreamReader((signal) => wakes.followWake({ wakeId: unknown }, { signal }));
    await expectRefusal(following.end(), Code.NotFound, "WAKE_NOT_FOUND", { metadata: { wakeId: unknown } });
  });

  test("ListWakes lists the wakes of an agent in pages, in both orders, by state", async () => {
    const { agentId } = await newAgent(clients);
    const names = [unique("wake"), unique("wake"), unique("wake")];
    for (const wakeId of names) {
      await wakes.wakeAgent({
        wakeId,
        target: target(agentId),
        expiresAt: soon(),
        ifUnavailable: IfUnavailable.QUEUE,
      });
    }
    const first = await wakes.listWakes({ agentId, pageSize: 2 });
    const second = await wakes.listWakes({ agentId, pageSize: 2, pageToken: first.nextPageToken });
    expect([...first.wakes, ...second.wakes].map(({ wakeId }) => wakeId)).toEqual(names);
    expect(second.nextPageToken).toBe("");
    expect(second.revision).toBe(first.revision);
    const newest = await wakes.listWakes({ agentId, newestFirst: true, pageSize: 1 });
    expect(newest.wakes.map(({ wakeId }) => wakeId)).toEqual(names.slice(-1));
    await wakes.cancelWake({ wakeId: present(names[0]) });
    const ended = await wakes.listWakes({ agentId, states: [WakeState.CANCELLED] });
    expect(ended.wakes.map(({ wakeId }) => wakeId)).toEqual(names.slice(0, 1));
  });

  test("PauseWakes pauses an agent and a claw, ListPauses lists the pauses, ResumeWakes ends them", async () => {
    await using taker = await newTaker();
    const { agentId, claw: clawIdentifier } = taker;
    const requestId = unique("request");
    const request = { target: target(agentId), note: "maintenance", until: soon(), requestId };
    const { pause } = await wakes.pauseWakes(request);
    expect(pause).toMatchObject({ target: target(agentId), note: "maintenance", actor: expect.any(String) });
    expect((await wakes.pauseWakes(request)).pause).toEqual(pause);
    await expectReusedRequestId(wakes.pauseWakes({ ...request, note: "other" }), requestId);
    await wakes.pauseWakes({ target: { case: "clawIdentifier", value: clawIdentifier } });
    const { pauses } = await wakes.listPauses({ pageSize: 1_000 });
    expect(pauses.map((one) => one.target.value)).toEqual(expect.arrayContaining([agentId, clawIdentifier]));
    expect((await getAgent(clients, agentId)).pause).toMatchObject({ target: target(agentId) });
    const woken = wakes.wakeAgent({ wakeId: unique("wake"), target: target(agentId), expiresAt: soon() });
    await expectRefusal(woken, Code.FailedPrecondition, "AGENT_PAUSED", { metadata: { until: expect.any(String) } });
    await wakes.resumeWakes({ target: target(agentId) });
    expect((await getAgent(clients, agentId)).pause).toMatchObject({ target: { value: clawIdentifier } });
    await wakes.resumeWakes({ target: { case: "clawIdentifier", value: clawIdentifier } });
    expect((await getAgent(clients, agentId)).pause).toBeUndefined();
    const past = wakes.pauseWakes({ target: target(agentId), until: timestampFromMs(Date.now() - 60_000) });
    await expectInvalid(past, "until");
    const nobody = unique("nobody");
    const unknown = wakes.pauseWakes({ target: target(nobody) });
    await expectRefusal(unknown, Code.NotFound, "AGENT_NOT_FOUND", { metadata: { agentId: nobody } });
  });

  test("a stream without takes_wakes gets no wakes, and one without instance_id may not take any", async () => {
    await using taker = await newTaker({ takesWakes: false });
    const request = { wakeId: unique("wake"), target: target(taker.agentId), expiresAt: soon() };
    await expectRefusal(wakes.wakeAgent(request), Code.FailedPrecondition, "WAKES_NOT_TAKEN");
    expect(updatesOf(taker.stream)).toEqual([]);
    await using nameless = new HeartbeatStream(claw);
    nameless.send({ takesWakes: true });
    await expectInvalid(nameless.end(), "instance_id");
  });

  test("SendHeartbeat takes FINISHED only", async () => {
    await using taker = await newTaker();
    const { agentId, stream } = taker;
    const wakeId = unique("wake");
    await wakes.wakeAgent({ wakeId, target: target(agentId), expiresAt: soon() });
    const offer = await update(stream, wakeId, WakeState.OFFERED);
    const send = async (type: WakeReplyType, more: object) => {
      const wakeReplies = [{ wakeId, offerRevision: offer.offerRevision, type, ...more }];
      return present((await clients.agents.sendHeartbeat({ beats: [{ agentId, wakeReplies }] })).results[0]);
    };
    expect(await send(WakeReplyType.ACCEPT, {})).toMatchObject({
      error: { reason: ErrorReason.INVALID_FIELD },
      wakeResults: [],
    });
    expect(await send(WakeReplyType.FINISHED, { outcome: WakeOutcome.SUCCEEDED })).toMatchObject({
      status: AgentStatus.IDLE,
      wakeResults: [{ wakeId, state: WakeState.FINISHED }],
    });
  });
});
