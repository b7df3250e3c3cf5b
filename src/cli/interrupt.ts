import type { Host, StopSignal } from "./host.ts";

/** npm passes on a Ctrl-C that the terminal has already given to everybody: what comes so soon is the same one. */
const SAME_SIGNAL_MS = 1_000;
const SIGNALS: readonly StopSignal[] = ["SIGINT", "SIGTERM", "SIGHUP"];

/** Ctrl-C and its like, of a command that ends in good order. */
export interface Interrupt extends Disposable {
  /** Aborted by the first one, or by `stop`. */
  readonly stopping: AbortSignal;
  /** Aborted by a second one: the person does not want to wait. */
  readonly hurrying: AbortSignal;
  /** Does what the first one does. */
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
