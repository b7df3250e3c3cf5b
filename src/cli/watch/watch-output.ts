import type { WatchEvent } from "harborforge-agents-client";
import { transitionDetails } from "../records/agent-columns.ts";
import { jsonText } from "../records/output.ts";
import type { OutputFormat } from "../records/output-option.ts";
import type { AgentRecord, ChangeRecord, TransitionRecord } from "../records/records.ts";
import { counted } from "../terminal/counted.ts";
import { printable } from "../terminal/printable.ts";
import type { Printer } from "../terminal/printer.ts";
import { Screen } from "../terminal/screen.ts";
import { localTime } from "../terminal/times.ts";
import { liveLines } from "./live-table.ts";
import { type Suspicion, WatchedAgents } from "./watched-agents.ts";

type Event = WatchEvent<AgentRecord, ChangeRecord>;

/** Shows the events of a watch. */
export interface WatchOutput {
  /** @throws OutputClosed */
  take(event: Event): Promise<void>;
  close(): void;
}

const REDRAW_EVERY_MS = 200;
/** How often a live table asks which agents are suspect, in milliseconds. */
const SUSPECTS_EVERY_MS = 2_000;
/** The agents of a large terminal. */
const MOST_SHOWN = 200;

/** Asks the service which agents are suspect: counts of all, and the instants of these agents. */
export type ReadSuspicion = (agentIds: readonly string[]) => Promise<Suspicion>;

/** A live table on a screen, lines otherwise, or the contract's JSON on request. */
export function watchOutput(
  format: OutputFormat,
  out: Printer,
  err: Printer,
  address: string,
  readSuspicion: ReadSuspicion,
): WatchOutput {
  if (format !== "table") return jsonOutput(out, err, format === "json");
  return out.isScreen ? screenOutput(out, address, readSuspicion) : lineOutput(out);
}

function screenOutput(out: Printer, address: string, readSuspicion: ReadSuspicion): WatchOutput {
  const agents = new WatchedAgents();
  const screen = new Screen(out);
  const draw = (): void => screen.draw(liveLines({ address, agents, nowMs: Date.now() }, screen.size, out.paint));
  let drawing: NodeJS.Timeout | undefined;
  let asking: NodeJS.Timeout | undefined;
  let isAsking = false;
  const ask = async (): Promise<void> => {
    if (isAsking) return;
    isAsking = true;
    try {
      agents.suspect(await readSuspicion(agents.shown(MOST_SHOWN).map(({ agentId }) => agentId)));
    } catch {
      // The watch itself shows that the service is unreachable. The next read tries again.
    } finally {
      isAsking = false;
    }
  };
  return {
    async take(event) {
      agents.apply(event);
      if (drawing !== undefined) return;
      // Redraw from the first event on, because relative times change.
      draw();
      drawing = setInterval(draw, REDRAW_EVERY_MS);
      asking = setInterval(() => void ask(), SUSPECTS_EVERY_MS);
      void ask();
    },
    close() {
      clearInterval(drawing);
      clearInterval(asking);
      screen.close();
    },
  };
}

function lineOutput(out: Printer): WatchOutput {
  return {
    async take(event) {
      await out.print(
        linesOf(event, Date.now())
          .map((line) => `${line}\n`)
          .join(""),
      );
    },
    close: () => undefined,
  };
}

function linesOf(event: Event, nowMs: number): string[] {
  switch (event.kind) {
    case "snapshot": {
      const why = event.because === "started" ? "" : `, again: ${event.because}`;
      return [
        ...event.agents.map(
          (agent) => `agent ${printable(agent.agentId)} ${agent.status} [${printable(agent.clawIdentifier)}]`,
        ),
        `snapshot of ${counted(event.agents.length, "agent")} as of revision ${event.revision}${why}`,
      ];
    }
    case "changes":
      return event.changes.map(({ transition }) => transitionLine(transition, nowMs));
    case "bookmark":
      return [];
    case "interrupted":
      return [`disconnected: ${printable(event.error?.message ?? "the service asked for a new connection.")}`];
  }
}

/** A transition as a line. Programs may parse it: statuses and cause have their names in the contract. */
function transitionLine(transition: TransitionRecord, nowMs: number): string {
  const { occurredAt, agentId, from, to, cause } = transition;
  const details = printable(transitionDetails(transition, nowMs));
  const change = `${from ?? "none"} -> ${to ?? "none"} [${cause}]`;
  return `${localTime(occurredAt, nowMs)} ${printable(agentId)} ${change}${details === "" ? "" : ` ${details}`}`;
}

/** One document for each event: an agent of a snapshot (a change without a type), a change, or a bookmark. */
function jsonOutput(out: Printer, err: Printer, indented: boolean): WatchOutput {
  return {
    async take(event) {
      if (event.kind === "interrupted") {
        const why = event.error?.message ?? "the service asked for a new connection.";
        return await err.print(`Disconnected: ${printable(why)} Reconnecting.\n`);
      }
      await out.print(
        documentsOf(event)
          .map((json) => `${jsonText(json, indented)}\n`)
          .join(""),
      );
    },
    close: () => undefined,
  };
}

function documentsOf(event: Exclude<Event, { readonly kind: "interrupted" }>): unknown[] {
  const revision = String(event.revision);
  switch (event.kind) {
    case "snapshot":
      return [...event.agents.map(({ json }) => ({ agent: json })), { revision, bookmark: { snapshotComplete: true } }];
    case "changes":
      return event.changes.map(({ json }) => json);
    case "bookmark":
      return [{ revision, bookmark: {} }];
  }
}
