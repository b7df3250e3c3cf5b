// One claw of a simulation, a process of its own so that killing it is a kill: started by fork, told by messages what it is.
import { type ClawAtWork, startClaw } from "./claw-at-work.ts";
import { readClawCommand } from "./claw-messages.ts";

let claw: ClawAtWork | undefined;
process.on("message", (message) => {
  const order = readClawCommand(message);
  if (order?.kind === "start") {
    claw ??= startClaw(order, (news) => {
      if (process.connected) process.send?.(news);
    });
  }
  if (order?.kind === "stop") void (claw?.stop() ?? Promise.resolve()).then(() => process.exit(0));
});
// Ctrl-C reaches the whole group of processes; when a claw ends is for the simulation to say.
process.on("SIGINT", () => undefined);
// The simulation is gone without a word, so this claw goes likewise: no process survives its owner.
process.on("disconnect", () => process.exit(1));
