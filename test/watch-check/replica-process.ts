/**
 * A replica of the service as a process: `node src/main.ts serve` but for the limits of its watches (WATCH_CHECK_LIMITS),
 * which are made small, so that a short run meets them.
 */
import { pino } from "pino";
import { Server } from "../../src/server.ts";

const { maxAgeMs, ...watchLimits } = JSON.parse(process.env.WATCH_CHECK_LIMITS ?? "{}");
const server = await Server.start({
  databaseUrl: process.env.DATABASE_URL ?? "",
  grpcAddress: "127.0.0.1:0",
  httpAddress: "127.0.0.1:0",
  pace: { shortestIntervalMs: 1_000, heartbeatsPerSecond: 10_000 },
  firstLeaseMs: 3_000,
  watchMaxAgeMs: maxAgeMs,
  watchLimits,
  log: pino({ level: "warn" }, pino.destination({ dest: 2, sync: true })),
});
process.stdout.write(`HTTP  http://${server.addresses.http}\n`);
process.once("SIGTERM", () => {
  void server.stop(300).then(() => process.exit(0));
});
process.stdin.once("end", () => process.exit(1)).resume();
