/** Ctrl-C in a terminal reaches npm as well, which passes it on: what comes this soon after a signal is its echo. */
const ECHO_MS = 500;

/** What people and process supervisors ask for with SIGINT and SIGTERM, and a terminal that is closed with SIGHUP. */
export interface StopSignals {
  /** Aborted by the first one: stop, in good order. */
  readonly stopping: AbortSignal;
  /** Aborted by the second one: stop now. */
  readonly hurrying: AbortSignal;
  /** Does what two signals do. */
  hurry(): void;
}

/**
 * Listens from now on and until the process ends: an echo that comes when all else is over must not kill it.
 *
 * A third signal ends the process where it stands, with exit code 1. The embedded PostgreSQL may survive that; the next
 * start takes it over.
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
 * Waits for some work no longer than until the signal is aborted. The work itself goes on; what becomes of it then is
 * nobody's concern.
 *
 * @throws the signal's reason
 */
export async function unlessAborted<Result>(work: Promise<Result>, signal: AbortSignal): Promise<Result> {
  const outcome = await Promise.race([work.then((result) => ({ result })), aborted(signal)]);
  if (outcome === "aborted") throw signal.reason;
  return outcome.result;
}
