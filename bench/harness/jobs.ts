/** The other end of `Worker`: does the jobs that the bench sends, one after the other, and answers each. */
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
  // Whoever gave the jobs is gone.
  process.on("disconnect", () => process.exit(0));
}
