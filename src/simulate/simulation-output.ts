import type { TransitionView } from "harborforge-agents-client";
import { jsonText } from "../cli/records/output.ts";
import { printable } from "../cli/terminal/printable.ts";
import type { Printer } from "../cli/terminal/printer.ts";
import { Screen } from "../cli/terminal/screen.ts";
import { tableLines } from "./live-screen.ts";
import { closingDocument, closingLines, summaryLines, transitionLine } from "./plain-lines.ts";
import type { SimulationView } from "./view.ts";

/** The output of a simulation. */
export interface SimulationOutput {
  /** Prints an event of the simulation. */
  note(sentence: string): void;
  transition(transition: TransitionView): void;
  /** Shows the current state; called several times a second. */
  show(view: SimulationView): void;
  /** Restores the terminal and prints the summary. */
  close(view: SimulationView | undefined): void;
}

export interface SimulationOutputOptions {
  /** Only a JSON summary, for programs. */
  readonly json: boolean;
  /** Whether each transition is a line, if there is no terminal. */
  readonly transitions: boolean;
}

/** A live table on a terminal, otherwise plain lines. */
export function createOutput(out: Printer, options: SimulationOutputOptions): SimulationOutput {
  if (options.json) return documentOutput(out);
  return out.isScreen ? screenOutput(out) : plainOutput(out, options.transitions);
}

const SUMMARY_EVERY_MS = 10_000;

function plainOutput(out: Printer, transitions: boolean): SimulationOutput {
  const print = (line: string): void => out.put(`${line}\n`);
  let lastSummaryAt = 0;
  return {
    note: (sentence) => print(`note ${printable(sentence)}`),
    transition: (transition) => {
      if (transitions) print(transitionLine(transition));
    },
    show(view) {
      if (view.elapsedMs - lastSummaryAt < SUMMARY_EVERY_MS) return;
      lastSummaryAt = view.elapsedMs;
      for (const line of summaryLines(view)) print(line);
    },
    close(view) {
      if (view !== undefined) for (const line of [...summaryLines(view), ...closingLines(view)]) print(line);
    },
  };
}

function screenOutput(out: Printer): SimulationOutput {
  const screen = new Screen(out);
  return {
    note: () => undefined,
    transition: () => undefined,
    show: (view) => screen.draw(tableLines(view, screen.size, out.paint)),
    close(view) {
      screen.close();
      if (view !== undefined)
        out.put(
          closingLines(view)
            .map((line) => `${line}\n`)
            .join(""),
        );
    },
  };
}

function documentOutput(out: Printer): SimulationOutput {
  return {
    note: () => undefined,
    transition: () => undefined,
    show: () => undefined,
    close(view) {
      if (view !== undefined) out.put(`${jsonText(closingDocument(view), true)}\n`);
    },
  };
}
