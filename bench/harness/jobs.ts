/** The other end of `Worker`: does the jobs of the bench one after the other, and answers each. */
export function doJobs(jobs: Readonly<Record<string, (details: never) => Promise<object>>>): void {
  process.on("message", (message: { job: string }) => {
    const work = jobs[message.job];
    const done = work === undefined ? Promise.reject(new Error(`no job ${message.job}`)) : work(message as never);
    done.then(
      (result) => process.send?.(result),
      (error: unknown) =>
        process.send?.({ failed: error instanceof Error ? (error.stack ?? error.message) : String(error) }),
    );
  });
  // The bench has ended.
  process.on("disconnect", () => process.exit(0));
}
