import { Writable } from "node:stream";
import fc from "fast-check";
import { describe, expect, test, vi } from "vitest";
import { colourPaint, paintFor, plainPaint } from "../../src/cli/terminal/paint.ts";
import { printable, printableJson } from "../../src/cli/terminal/printable.ts";
import { OutputClosed, Printer } from "../../src/cli/terminal/printer.ts";
import { Progress } from "../../src/cli/terminal/progress.ts";
import { Table } from "../../src/cli/terminal/table.ts";
import { clip, padEnd, padStart, widthOf } from "../../src/cli/terminal/text-width.ts";
import { awayOf, localTime, timeText } from "../../src/cli/terminal/times.ts";

describe("printable text", () => {
  test.each([
    ["plain text, ünïcode, 漢字", "plain text, ünïcode, 漢字"],
    ["\u001b[31mred\u001b]0;title\u0007", "\\u{1b}[31mred\\u{1b}]0;title\\u{7}"],
    ["\u009b31m", "\\u{9b}31m"],
    ["a\r\nb\tc", "a\\u{d}\\u{a}b\\u{9}c"],
    ["abc\u202edef\u2066", "abc\\u{202e}def\\u{2066}"],
    ["zero\u200bwidth\ufeff", "zero\\u{200b}width\\u{feff}"],
    ["half \ud800 pair", "half \\u{d800} pair"],
    ["lines\u2028\u2029", "lines\\u{2028}\\u{2029}"],
    ["tag \u{e0041}", "tag \\u{e0041}"],
    ["👩‍👩‍👧 ❤️‍🔥 👩🏽‍💻", "👩‍👩‍👧 ❤️‍🔥 👩🏽‍💻"],
    ["نامه\u200cای", "نامه\u200cای"],
    ["bob\u200d", "bob\\u{200d}"],
  ])("%j is shown as %j", (text, shown) => {
    expect(printable(text)).toBe(shown);
  });

  test("has no control character that a terminal obeys", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), (text) => {
        expect(printable(text)).not.toMatch(/[\p{Cc}\p{Cs}\u2028\u2029\u202a-\u202e\u2066-\u2069\u200e\u200f]/u);
      }),
    );
  });

  test("keeps the value of JSON", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), (text) => {
        const json = printableJson(JSON.stringify({ text }, null, 2));
        expect(JSON.parse(json)).toEqual(JSON.parse(JSON.stringify({ text })));
        expect(json).not.toMatch(/[\u007f-\u009f\u2028-\u202e\u2066-\u2069]/);
      }),
    );
  });
});

describe("widths", () => {
  test.each([
    ["abc", 3],
    ["漢字", 4],
    ["👩‍👩‍👧", 2],
    ["e\u0301", 1],
    ["", 0],
  ])("%j takes %i columns", (text, width) => {
    expect(widthOf(text)).toBe(width);
    expect(padEnd(text, 5)).toBe(text + " ".repeat(5 - width));
    expect(padStart(text, 5)).toBe(" ".repeat(5 - width) + text);
  });

  test.each([
    ["abcdef", 6, "abcdef"],
    ["abcdef", 5, "abcd…"],
    ["漢字漢字", 5, "漢字…"],
    ["漢字漢字", 6, "漢字…"],
    ["👩‍👩‍👧👩‍👩‍👧", 3, "👩‍👩‍👧…"],
    ["abc", 1, "…"],
    ["abc", 0, ""],
  ])("%j cut to %i is %j", (text, columns, cut) => {
    expect(clip(text, columns)).toBe(cut);
  });
});

describe("times", () => {
  const now = new Date(2026, 10, 22, 22, 30, 0).getTime();
  const at = (ms: number): number => (now + ms) * 1_000;

  test.each([
    [0, "now"],
    [-999, "now"],
    [-12_000, "12 s ago"],
    [119_900, "in 2 min"],
    [59_700, "in 1 min"],
    [-3 * 3_600_000, "3 h ago"],
    [47 * 3_600_000, "in 47 h"],
    [10 * 24 * 3_600_000, "in 10 d"],
  ])("%i ms away is %j", (ms, words) => {
    expect(awayOf(at(ms), now)).toBe(words);
  });

  test("are printed in local time, with the date on another day", () => {
    expect(localTime(at(-5_000), now)).toBe("22:29:55");
    expect(localTime(at(2 * 3_600_000), now)).toBe("2026-11-23 00:30:00");
    expect(timeText(at(240_000), now)).toBe("22:34:00 (in 4 min)");
    expect(timeText(undefined, now)).toBe("");
  });
});

describe("a table", () => {
  interface Row {
    readonly name: string;
    readonly count: number;
    readonly note: string;
  }
  const columns = [
    { heading: "NAME", cell: ({ name }: Row) => name },
    {
      heading: "COUNT",
      cell: ({ count }: Row) => ({ text: String(count), style: "busy" as const }),
      align: "right" as const,
    },
    { heading: "NOTE", cell: ({ note }: Row) => note, optional: true as const },
  ];
  const rows: Row[] = [
    { name: "a", count: 1, note: "short" },
    { name: "漢字漢字", count: 22, note: "\u001b[2J" },
  ];

  test("aligns wide characters, and escapes hostile ones", () => {
    const lines = new Table(columns, { paint: plainPaint, columns: undefined }).lines(rows);
    expect(lines).toEqual(["NAME      COUNT  NOTE", "a             1  short", "漢字漢字     22  \\u{1b}[2J"]);
  });

  test("continues without its headings, and columns only get wider", () => {
    const table = new Table(columns, { paint: plainPaint, columns: undefined });
    table.lines(rows.slice(0, 1));
    expect(table.lines(rows.slice(1))).toEqual(["漢字漢字     22  \\u{1b}[2J"]);
    expect(table.lines(rows.slice(0, 1))).toEqual(["a             1  short"]);
  });

  test("omits optional columns on a narrow screen, then cuts the widest", () => {
    const look = { paint: plainPaint, columns: 18 };
    expect(new Table(columns, look).lines(rows.slice(0, 1))).toEqual(["NAME  COUNT", "a         1"]);
    const long = [{ name: "x".repeat(50), count: 1, note: "" }];
    expect(new Table(columns, look).lines(long)).toEqual(["NAME        COUNT", "xxxxxxxxx…  \u001b[13G    1"]);
  });

  test("moves to the next column by number when terminals disagree on widths", () => {
    const look = { paint: plainPaint, columns: 80 };
    const lines = new Table(columns, look).lines([{ name: "👩‍👩‍👧", count: 1, note: "n" }]);
    expect(lines[1]).toContain("\u001b[7G    1");
    expect(lines[0]).not.toContain("\u001b");
  });

  test("colours words, not blanks", () => {
    const lines = new Table(columns, { paint: colourPaint, columns: undefined }).lines(rows.slice(0, 1));
    expect(lines[1]).toBe("a         \u001b[33m1\u001b[39m  short");
  });
});

describe("colours", () => {
  const stream = (isTTY: boolean) => Object.assign(new Writable(), { isTTY });

  test.each([
    [true, {}, true],
    [true, { NO_COLOR: "1" }, false],
    [true, { NO_COLOR: "" }, true],
    [true, { TERM: "dumb" }, false],
    [false, {}, false],
    [false, { FORCE_COLOR: "1" }, false],
  ])("terminal %j, environment %j: %j", (isTTY, env, colours) => {
    const text = paintFor(stream(isTTY), env)("alarm", "x");
    expect(text).toBe(colours ? "\u001b[1m\u001b[31mx\u001b[39m\u001b[22m" : "x");
  });
});

test("a printer with a closed output reports that once, and never throws by itself", async () => {
  const stream = new Writable({ write: (_chunk, _encoding, done) => done(new Error("EPIPE")) });
  const printer = new Printer(stream, {});
  const gone = new Promise<void>((resolve) => printer.onClosed(resolve));
  await expect(printer.print("x")).rejects.toBeInstanceOf(OutputClosed);
  await gone;
  await expect(printer.print("y")).rejects.toBeInstanceOf(OutputClosed);
  printer.put("z");
});

test("progress stays on its line, however narrow the screen is", () => {
  let written = "";
  const terminal = Object.assign(
    new Writable({
      write(chunk, _encoding, done) {
        written += String(chunk);
        done();
      },
    }),
    { isTTY: true, columns: 20 },
  );
  vi.useFakeTimers({ toFake: ["performance"] });
  try {
    const progress = new Progress(new Printer(terminal, { TERM: "xterm" }));
    vi.advanceTimersByTime(1_000);
    progress.show("Users and agents are deleted", 1, 10);
    progress.end();
  } finally {
    vi.useRealTimers();
  }
  expect(written).toBe("\r\u001b[KUsers and agents a…\r\u001b[K");
});
