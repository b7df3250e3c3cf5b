import type { Host, StopSignal } from "./host.ts";

/**
 * npm forwards a Ctrl-C that the terminal has already sent to all processes. A signal within this time, in
 * milliseconds, is the same one.
 */
const SAME_SIGNAL_MS = 1_000;
const SIGNALS: readonly StopSignal[] = ["SIGINT", "SIGTERM", "SIGHUP"];

/** The signals of a command that stops in good order. */
export interface Interrupt extends Disposable {
  /** Aborted by the first signal, or by `stop`. */
  readonly stopping: AbortSignal;
  /** Aborted by the second signal: stop at once. */
  readonly hurrying: AbortSignal;
  /** Has the effect of the first signal. */
  stop(): void;
}

/** Listens until it is disposed of. */
export function listenForInterrupts(host: Pick<Host, "on" | "off">): Interrupt {
  const stopping = new AbortController();
  const hurrying = new AbortController();
  let stoppedAt = Number.NEGATIVE_INFINITY;
  const onSignal = (): void => {
    if (!stopping.signal.aborted) stoppedAt = performance.now();
    else if (performance.now() - stoppedAt > SAME_SIGNAL_MS) hurrying.abort();
    stopping.abort();
  };
  for (const signal of SIGNALS) host.on(signal, onSignal);
  return {
    stopping: stopping.signal,
    hurrying: hurrying.signal,
    stop: () => stopping.abort(),
    [Symbol.dispose]() {
      for (const signal of SIGNALS) host.off(signal, onSignal);
    },
  };
}
