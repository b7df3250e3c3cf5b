import { afterEach, describe, expect, test, vi } from "vitest";
import { openPair, tryStream, untilRefused } from "../support/cut-off-scene.ts";
import { Beating, expiries, rowOf } from "../support/fleet-scene.ts";
import { alive } from "../support/replica-stream.ts";
import { until } from "../support/until.ts";

const INTERVAL_MS = 1_000;
const PACE = { intervalMs: INTERVAL_MS };
const PROCESS = { instanceId: "claw process" };

let undo = new AsyncDisposableStack();
afterEach(async () => {
  await undo.disposeAsync();
  undo = new AsyncDisposableStack();
});

describe("a replica that has detected its loss of the database", () => {
  test("rejects new streams, keeps existing ones, and accepts streams when the database is back", async () => {
    const { fine, cut, proxy } = await openPair(undo, PACE);
    const [held = "", comes = ""] = await fine.seedAgents(2, "refused-");
    using standing = cut.stream();
    using _beating = new Beating(() => standing, [held], 200);
    await until("it is held", () => standing.acknowledged > 0n);
    proxy.cut();
    await untilRefused(cut);

    expect(() => cut.stream(PROCESS)).toThrow(
      expect.objectContaining({ reason: "DATABASE_UNAVAILABLE", retryAfterMs: INTERVAL_MS / 10 }),
    );
    using other = fine.stream(PROCESS);
    expect(await other.say(alive(comes))).toMatchObject([{ status: "idle", refusal: null }]);
    expect(standing.ended).toBe(false);

    proxy.mend();
    const again = await until("it takes streams again", () => tryStream(cut));
    using _again = again;
    await again.say(alive(comes));
    const acknowledged = standing.acknowledged;
    await until("the stream that stood goes on", () => standing.acknowledged > acknowledged);
    expect(await expiries(fine)).toEqual([]);
  });

  test("drains streams whose agents it could not claim much sooner than streams whose agents it holds", async () => {
    const { fine, cut, proxy } = await openPair(undo, PACE);
    const [held = "", comes = ""] = await fine.seedAgents(2, "asked-");
    using standing = cut.stream();
    using _beating = new Beating(() => standing, [held], 200);
    await until("it is held", () => standing.acknowledged > 0n);
    using former = fine.stream({ ...PROCESS, generation: 1n });
    await former.say(alive(comes));
    former.close();

    proxy.cut();
    const random = vi.spyOn(Math, "random").mockReturnValue(1);
    using unclaimed = cut.stream({ ...PROCESS, generation: 2n });
    unclaimed.send(alive(comes));
    await until("both are asked", () => unclaimed.reconnectWithinMs ?? false);
    await until("both are asked", () => standing.reconnectWithinMs ?? false);
    random.mockRestore();
    expect(unclaimed.reconnectWithinMs).toBe(INTERVAL_MS / 4);
    expect(standing.reconnectWithinMs).toBe(INTERVAL_MS);
    // The guard of the isolated replica does not apply to this agent.
    expect(await fine.agents.get({ agentId: comes })).toMatchObject({ replicaId: fine.number });
  });
});

test("a process that was paused for a while is not isolated: it drains and rejects no stream", async () => {
  const { fine, cut } = await openPair(undo, PACE);
  const [agentId = ""] = await fine.seedAgents(1, "blocked-");
  using stream = cut.stream();
  await stream.say(alive(agentId));
  const asked = vi.spyOn(stream.session, "drain");
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1.5 * INTERVAL_MS);
  // The first timers after the pause check whether it can write, before anything else can happen.
  for (let turn = 0; turn < 5; turn++) {
    await new Promise((resolve) => setTimeout(resolve, 30));
    using another = cut.stream();
    await another.say(alive(agentId));
  }
  expect(asked).not.toHaveBeenCalled();
  await until("it listens", async () => (await rowOf(cut, fine))?.adopted_by === null);
});
