/** Ctrl-C in a terminal also reaches npm, which forwards it. A signal within this time, in milliseconds, is an echo. */
const ECHO_MS = 500;

/** The stop requests of people and supervisors (SIGINT, SIGTERM), and of a closed terminal (SIGHUP). */
export interface StopSignals {
  /** Aborted by the first signal: stop in good order. */
  readonly stopping: AbortSignal;
  /** Aborted by the second signal: stop at once. */
  readonly hurrying: AbortSignal;
  /** Has the effect of two signals. */
  hurry(): void;
}

/**
 * Listens until the process ends, because a late echo must not kill it.
 *
 * A third signal ends the process at once with exit code 1. The embedded PostgreSQL may survive that; the next start
 * takes it over.
 */
export function stopSignals(process: NodeJS.Process): StopSignals {
  const stopping = new AbortController();
  const hurrying = new AbortController();
  let heardAt = Number.NEGATIVE_INFINITY;
  const onSignal = (): void => {
    const now = performance.now();
    if (now - heardAt < ECHO_MS) return;
    heardAt = now;
    if (!stopping.signal.aborted) stopping.abort();
    else if (!hurrying.signal.aborted) hurrying.abort();
    else process.exit(1);
  };
  for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(name, onSignal);
  return {
    stopping: stopping.signal,
    hurrying: hurrying.signal,
    hurry() {
      stopping.abort();
      hurrying.abort();
    },
  };
}

/** Resolves when the signal is aborted, at once if it is already. */
export function aborted(signal: AbortSignal): Promise<"aborted"> {
  if (signal.aborted) return Promise.resolve("aborted");
  return new Promise((resolve) => signal.addEventListener("abort", () => resolve("aborted"), { once: true }));
}

/**
 * Waits for some work until the signal is aborted. The work itself continues, and its result is dropped.
 *
 * @throws the signal's reason
 */
export async function unlessAborted<Result>(work: Promise<Result>, signal: AbortSignal): Promise<Result> {
  const outcome = await Promise.race([work.then((result) => ({ result })), aborted(signal)]);
  if (outcome === "aborted") throw signal.reason;
  return outcome.result;
}
