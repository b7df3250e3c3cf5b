// A simulated claw as a process of its own, so that it can be killed. Its parent forks it and sends commands as
// messages.
import { type ClawAtWork, startClaw } from "./claw-at-work.ts";
import { readClawCommand } from "./claw-messages.ts";

let claw: ClawAtWork | undefined;
process.on("message", (message) => {
  const order = readClawCommand(message);
  if (order?.kind === "start") {
    claw ??= startClaw(order, (event) => {
      if (process.connected) process.send?.(event);
    });
  }
  if (order?.kind === "stop") void (claw?.stop() ?? Promise.resolve()).then(() => process.exit(0));
});
// Ctrl-C reaches the whole process group, but the simulation decides when a claw stops.
process.on("SIGINT", () => undefined);
// The simulation has died, so this claw exits as well, without a goodbye.
process.on("disconnect", () => process.exit(1));
