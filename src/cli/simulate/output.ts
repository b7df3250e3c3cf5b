import type { TransitionView } from "../../client/views.ts";
import { closingLines, summaryLines, transitionLine } from "./plain-lines.ts";
import { tableLines } from "./table.ts";
import type { DemoView } from "./view.ts";

/** Where the demo shows itself. */
export interface Output {
  /** Something happened that is worth a line of its own. */
  note(sentence: string): void;
  transition(transition: TransitionView): void;
  /** The picture of the moment; asked for several times a second. */
  show(view: DemoView): void;
  /** The end: leaves the terminal as it was found, with what the demo has come to. */
  close(view: DemoView | undefined): void;
}

type Terminal = Pick<NodeJS.WriteStream, "isTTY" | "columns" | "rows" | "write">;

/** A live table on a terminal, plain lines everywhere else. `NO_COLOR` is obeyed. */
export function createOutput(terminal: Terminal, env: Readonly<Record<string, string | undefined>>): Output {
  const { TERM, NO_COLOR } = env;
  if (!terminal.isTTY || TERM === "dumb") return plainOutput(terminal);
  return screenOutput(terminal, NO_COLOR === undefined || NO_COLOR === "");
}

const SUMMARY_EVERY_MS = 10_000;

function plainOutput(terminal: Terminal): Output {
  const print = (line: string): void => void terminal.write(`${line}\n`);
  let summedUpAt = 0;
  return {
    note: (sentence) => print(`note ${sentence}`),
    transition: (transition) => print(transitionLine(transition)),
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

// A screen of its own, so that what was on the terminal before is there again afterwards; no cursor while it is drawn.
const ENTER = "\u001b[?1049h\u001b[?25l";
// All at once where the terminal knows how to; others ignore it.
const BEGIN_PICTURE = "\u001b[?2026h\u001b[H";
const END_PICTURE = "\u001b[?2026l";
// Ctrl-C makes the terminal drop what it has not shown yet, maybe the half of a picture.
const LEAVE = `\u001b[0m${END_PICTURE}\u001b[?25h\u001b[?1049l`;
const END_OF_LINE = "\u001b[K";
const REST_OF_SCREEN = "\u001b[J";

function screenOutput(terminal: Terminal, colour: boolean): Output {
  let drawn: string | undefined;
  const size = () => ({ columns: terminal.columns || 80, rows: terminal.rows || 24 });
  return {
    note: () => undefined,
    transition: () => undefined,
    show(view) {
      const { columns, rows } = size();
      // Without a line break after the last line: the screen would scroll.
      const picture = tableLines(view, { columns, rows }, colour).join(`${END_OF_LINE}\n`);
      if (picture === drawn) return;
      const enter = drawn === undefined ? ENTER : "";
      drawn = picture;
      terminal.write(`${enter}${BEGIN_PICTURE}${picture}${END_OF_LINE}${REST_OF_SCREEN}${END_PICTURE}`);
    },
    close(view) {
      if (drawn !== undefined) terminal.write(LEAVE);
      drawn = undefined;
      if (view !== undefined) terminal.write([...closingLines(view), ""].join("\n"));
    },
  };
}
