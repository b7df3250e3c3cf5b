/** Faults within a host: of its connections, or of the worker thread that beats. */
export type SocketFault = "socket" | "socket-error" | "session" | "session-error" | "go-away" | "worker";

/** The requests of the torture to a host. */
export type Order =
  /** Blocks the event loop, now or in the tick in which the next ping is sent. */
  | { readonly kind: "stall"; readonly ms: number; readonly at: "now" | "ping" }
  /** Reports nothing for a while: connections are quiet, and pings are sent. */
  | { readonly kind: "quiet"; readonly ms: number }
  | { readonly kind: "break"; readonly how: SocketFault }
  /** Reports when everything works: a report of each agent, a call, the watch. */
  | { readonly kind: "probe"; readonly id: number }
  | { readonly kind: "sample"; readonly id: number }
  | { readonly kind: "end" };

/** The messages of a host. */
export type News =
  | { readonly kind: "ready" }
  /** The service acknowledged that the agent is exhausted until this instant, which is used once. */
  | { readonly kind: "acknowledged"; readonly agentId: string; readonly recoveryAt: number }
  | { readonly kind: "refused"; readonly agentId: string; readonly reason: string }
  | { readonly kind: "probed"; readonly id: number }
  | { readonly kind: "sample"; readonly id: number; readonly bytes: number; readonly resources: number }
  | { readonly kind: "ended" };
