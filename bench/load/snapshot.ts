// Reads snapshots of the whole fleet one after the other, each on a connection of its own.
import { doJobs } from "../harness/jobs.ts";
import { connect, openCountingWatch } from "./wire.ts";

export interface SnapshotFigures {
  readonly ms: number;
  readonly bytes: number;
  readonly loadCpuMs: number;
}

doJobs({
  take: async ({ address, agents }: { address: string; agents: number }): Promise<SnapshotFigures> => {
    const session = connect(`http://${address}`);
    const cpu = process.cpuUsage();
    const begin = performance.now();
    const refused = Promise.withResolvers<never>();
    const bytes = await Promise.race([
      refused.promise,
      new Promise<number>((resolve) => {
        openCountingWatch(
          session,
          {},
          (count) => {
            if (count.snapshotAgents >= agents && count.bookmarks > 0) resolve(count.bytes);
          },
          (refusal) => refused.reject(new Error(refusal)),
        );
      }),
    ]);
    const ms = performance.now() - begin;
    const { user, system } = process.cpuUsage(cpu);
    session.destroy();
    return { ms, bytes, loadCpuMs: (user + system) / 1_000 };
  },
});
