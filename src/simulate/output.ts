import type { TransitionView } from "harborforge-agents-client";
import { jsonText } from "../cli/records/output.ts";
import { printable } from "../cli/terminal/printable.ts";
import type { Printer } from "../cli/terminal/printer.ts";
import { Screen } from "../cli/terminal/screen.ts";
import { closingDocument, closingLines, summaryLines, transitionLine } from "./plain-lines.ts";
import { tableLines } from "./table.ts";
import type { SimulationView } from "./view.ts";

/** Where a simulation shows itself. */
export interface Output {
  /** Something happened that is worth a line of its own. */
  note(sentence: string): void;
  transition(transition: TransitionView): void;
  /** The picture of the moment; asked for several times a second. */
  show(view: SimulationView): void;
  /** The end: leaves the terminal as it was found, with what the simulation has come to. */
  close(view: SimulationView | undefined): void;
}

export interface OutputOptions {
  /** Only the summary, as a document for programs. */
  readonly json: boolean;
  /** Whether each transition is a line, where there is no screen. */
  readonly transitions: boolean;
}

/** A live table on a terminal, plain lines everywhere else. */
export function createOutput(out: Printer, options: OutputOptions): Output {
  if (options.json) return documentOutput(out);
  return out.isScreen ? screenOutput(out) : plainOutput(out, options.transitions);
}

const SUMMARY_EVERY_MS = 10_000;

function plainOutput(out: Printer, transitions: boolean): Output {
  const print = (line: string): void => out.put(`${line}\n`);
  let summedUpAt = 0;
  return {
    note: (sentence) => print(`note ${printable(sentence)}`),
    transition: (transition) => {
      if (transitions) print(transitionLine(transition));
    },
    show(view) {
      if (view.elapsedMs - summedUpAt < SUMMARY_EVERY_MS) return;
      summedUpAt = view.elapsedMs;
      for (const line of summaryLines(view)) print(line);
    },
    close(view) {
      if (view !== undefined) for (const line of [...summaryLines(view), ...closingLines(view)]) print(line);
    },
  };
}

function screenOutput(out: Printer): Output {
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

function documentOutput(out: Printer): Output {
  return {
    note: () => undefined,
    transition: () => undefined,
    show: () => undefined,
    close(view) {
      if (view !== undefined) out.put(`${jsonText(closingDocument(view), true)}\n`);
    },
  };
}
