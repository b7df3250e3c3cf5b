import { spawn as spawnInTerminal } from "@lydell/node-pty";
import xterm from "@xterm/headless";
import { expect, vi } from "vitest";
import { owning } from "./owned-process.ts";
import { checkout } from "./program.ts";

const spawn = owning(spawnInTerminal);

/** Longer than any step takes, also on a machine that is busy with other tests. */
const DEADLINE_MS = 20_000;

/**
 * A program in a terminal: the state machine of a real terminal interprets its output, and the test reads the
 * screen.
 */
export interface PseudoTerminal extends AsyncDisposable {
  /** The raw output. */
  readonly raw: string;
  readonly pid: number;
  /** The visible lines, without blanks at their ends and without empty ones below. */
  screen(): string[];
  /** Whether the alternate screen, which programs draw pictures on, is shown. */
  readonly isAlternate: boolean;
  /** Whether the cursor is hidden. */
  readonly isCursorHidden: boolean;
  /**
   * The colour of the cell where a text begins, in a row or in the first row that has it; undefined without a
   * colour.
   */
  colourOf(text: string, inRow?: number): number | undefined;
  /** The column, from 0, in which a text begins in a row, from 0. */
  columnOf(text: string, row?: number): number;
  type(text: string): void;
  resize(columns: number, rows: number): void;
  /** Waits until the screen passes a check; fails with the screen. */
  shows(check: RegExp | string | ((screen: readonly string[]) => void)): Promise<void>;
  /** The exit code, when it is gone and all its output was read. */
  readonly ended: Promise<number>;
}

export interface TerminalOptions {
  readonly columns?: number;
  readonly rows?: number;
  readonly env?: Readonly<Record<string, string>>;
}

export function openTerminal(
  command: string,
  args: readonly string[],
  { columns = 100, rows = 30, env = {} }: TerminalOptions = {},
): PseudoTerminal {
  const terminal = new xterm.Terminal({ cols: columns, rows, allowProposedApi: true, scrollback: 1_000 });
  const child = spawn(command, [...args], {
    name: env.TERM ?? "xterm-256color",
    cols: columns,
    rows,
    cwd: checkout,
    // Nothing of the environment of the tests.
    env: { PATH: process.env.PATH ?? "", HOME: "/nonexistent", LANG: "C.UTF-8", TERM: "xterm-256color", ...env },
  });
  let raw = "";
  let taken: Promise<void> = Promise.resolve();
  child.onData((text) => {
    raw += text;
    taken = new Promise((resolve) => terminal.write(text, resolve));
  });
  // Terminals answer queries of their state.
  terminal.onData((answer) => child.write(answer));
  let gone = false;
  const ended = new Promise<number>((resolve) => {
    child.onExit(({ exitCode, signal }) => {
      gone = true;
      resolve(signal === undefined || signal === 0 ? exitCode : 128 + signal);
    });
  }).then(async (code) => {
    await taken;
    return code;
  });
  const screen = (): string[] => {
    const { active } = terminal.buffer;
    const lines = Array.from({ length: terminal.rows }, (_, row) => {
      return (active.getLine(active.viewportY + row)?.translateToString(true, 0, terminal.cols) ?? "").trimEnd();
    });
    return lines.slice(0, lines.findLastIndex((line) => line !== "") + 1);
  };
  const columnOf = (text: string, row = 0): number => {
    const { active } = terminal.buffer;
    const line = active.getLine(active.viewportY + row);
    for (let column = 0; line !== undefined && column < terminal.cols; column += 1) {
      if (line.getCell(column)?.getChars() !== "" && line.translateToString(true, column).startsWith(text))
        return column;
    }
    throw new Error(`not in row ${row}: ${text}\n${screen().join("\n")}`);
  };
  return {
    get raw() {
      return raw;
    },
    pid: child.pid,
    screen,
    get isAlternate() {
      return terminal.buffer.active.type === "alternate";
    },
    get isCursorHidden() {
      return raw.lastIndexOf("\u001b[?25l") > raw.lastIndexOf("\u001b[?25h");
    },
    colourOf(text, inRow) {
      const row = inRow ?? screen().findIndex((line) => line.includes(text));
      const { active } = terminal.buffer;
      const cell = active.getLine(active.viewportY + row)?.getCell(columnOf(text, row));
      return cell === undefined || cell.isFgDefault() ? undefined : cell.getFgColor();
    },
    columnOf,
    type: (text) => child.write(text),
    resize(newColumns, newRows) {
      terminal.resize(newColumns, newRows);
      child.resize(newColumns, newRows);
    },
    async shows(check) {
      await vi.waitFor(
        () => {
          const lines = screen();
          if (typeof check === "function") check(lines);
          else expect(lines.join("\n")).toMatch(check);
        },
        { timeout: DEADLINE_MS, interval: 20 },
      );
    },
    ended,
    async [Symbol.asyncDispose]() {
      if (!gone) child.kill("SIGKILL");
      await ended;
      terminal.dispose();
    },
  };
}

/** `node src/main.ts …` in a terminal. */
export function cliInTerminal(args: readonly string[], options: TerminalOptions = {}): PseudoTerminal {
  return openTerminal(process.execPath, ["src/main.ts", ...args], options);
}
