import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import { expect, test } from "vitest";
import { WakeState } from "../../gen/harborforge/agents/v1/agent_pb.ts";
import { ErrorReason } from "../../gen/harborforge/agents/v1/error_reason_pb.ts";
import { IfUnavailable, WakeReplyType } from "../../gen/harborforge/agents/v1/wake_pb.ts";
import { forAgents } from "../support/access.ts";
import { deploy } from "../support/access-deployment.ts";
import { expectRefusal, newAgent, present } from "../support/contract-steps.ts";
import { HeartbeatStream, StreamReader } from "../support/contract-streams.ts";
import { GRPC_JS, openClients } from "../support/protocol-clients.ts";
import { unique } from "../support/service.ts";

const textOf = (wake: { readonly payload: Uint8Array } | undefined) => new TextDecoder().decode(wake?.payload);

test("services act on their own wakes, admins on all; viewers and other services read them without payloads", async () => {
  await using undo = new AsyncDisposableStack();
  const deployment = undo.use(await deploy({ replicas: 1 }));
  const address = present(deployment.replicas[0]);
  const as = async (role: "service" | "viewer") => {
    const { secret } = await deployment.mint.issue({ role });
    return undo.use(openClients(GRPC_JS, address, secret));
  };
  const [calendar, other, viewer] = [await as("service"), await as("service"), await as("viewer")];
  const { agentId } = await newAgent(deployment.admin);
  const wakeId = unique("wake");
  const plan = "the plan of the acquisition";
  const payload = new TextEncoder().encode(plan);
  const request = {
    wakeId,
    target: { case: "agentId", value: agentId } as const,
    expiresAt: timestampFromMs(Date.now() + 60_000),
    ifUnavailable: IfUnavailable.QUEUE,
    payload,
  };
  expect(textOf((await calendar.wakes.wakeAgent(request)).wake)).toBe(plan);
  const named = { metadata: { wakeId } };
  await expectRefusal(other.wakes.wakeAgent(request), Code.AlreadyExists, "WAKE_ID_TAKEN", named);
  await expectRefusal(other.wakes.cancelWake({ wakeId }), Code.PermissionDenied, "PERMISSION_DENIED", named);
  await using foreign = new StreamReader((signal) => other.wakes.followWake({ wakeId }, { signal }));
  await expectRefusal(foreign.end(), Code.PermissionDenied, "PERMISSION_DENIED", named);
  for (const [reader, seen] of [
    [calendar, plan],
    [deployment.admin, plan],
    [other, ""],
    [viewer, ""],
  ] as const) {
    expect(textOf((await reader.wakes.getWake({ wakeId })).wake)).toBe(seen);
    expect((await reader.wakes.listWakes({ agentId })).wakes.map(textOf)).toEqual([seen]);
  }
  const note = "because of the acquisition";
  expect((await deployment.admin.wakes.cancelWake({ wakeId, note })).wake?.state).toBe(WakeState.CANCELLED);
  // Neither payloads nor notes appear in logs.
  expect(deployment.logged.join("\n")).not.toContain("acquisition");
  expect(deployment.logged.join("\n")).not.toContain(Buffer.from(payload).toString("base64"));
});

test("an agent's credential replies for its own agents, and learns nothing of the wakes of others", async () => {
  await using undo = new AsyncDisposableStack();
  const deployment = undo.use(await deploy({ replicas: 1 }));
  const address = present(deployment.replicas[0]);
  const [mine, theirs] = [await newAgent(deployment.admin), await newAgent(deployment.admin)];
  const { secret } = await deployment.mint.issue(forAgents(mine.agentId));
  const agent = undo.use(openClients(GRPC_JS, address, secret));
  const wakeId = unique("wake");
  await deployment.admin.wakes.wakeAgent({
    wakeId,
    target: { case: "agentId", value: theirs.agentId },
    expiresAt: timestampFromMs(Date.now() + 60_000),
    ifUnavailable: IfUnavailable.QUEUE,
  });
  await using stream = new HeartbeatStream(agent);
  const wakeReplies = [wakeId, unique("unknown")].map((one) => ({
    wakeId: one,
    offerRevision: 1n,
    type: WakeReplyType.ACCEPT,
  }));
  const [result] = await stream.beat({
    instanceId: "process-1",
    takesWakes: true,
    beats: [{ agentId: mine.agentId, wakeReplies }],
  });
  expect(result?.wakeResults.map(({ state, error }) => [state, error?.reason])).toEqual([
    [WakeState.UNSPECIFIED, ErrorReason.WAKE_NOT_FOUND],
    [WakeState.UNSPECIFIED, ErrorReason.WAKE_NOT_FOUND],
  ]);
  const [denied] = await stream.beat({ beats: [{ agentId: theirs.agentId, wakeReplies: wakeReplies.slice(0, 1) }] });
  expect(denied).toMatchObject({ error: { reason: ErrorReason.PERMISSION_DENIED }, wakeResults: [] });
});
