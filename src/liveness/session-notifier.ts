import type { StreamSession } from "./stream-session.ts";

/**
 * Notifies the listeners of sessions, never within a session's own methods. A batch of heartbeats settles beats of many
 * streams, and several of some: each listener is notified once, after the batch.
 */
export class SessionNotifier {
  #sessions: StreamSession[] = [];

  /** Call once for each session until its listener was notified. */
  schedule(session: StreamSession): void {
    this.#sessions.push(session);
    if (this.#sessions.length > 1) return;
    queueMicrotask(() => {
      const sessions = this.#sessions;
      this.#sessions = [];
      for (const one of sessions) one.notifyListener();
    });
  }
}
