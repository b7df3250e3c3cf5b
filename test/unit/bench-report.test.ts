import { readFile } from "node:fs/promises";
import { describe, expect, it } from "vitest";
import { chartsOf } from "../../bench/charts/all.ts";
import { merge, withResults } from "../../bench/harness/docs.ts";
import { figure, ratio, short } from "../../bench/harness/figures.ts";
import { type Report, readReport, type ScenarioReport, tableOf } from "../../bench/harness/report.ts";
import { type Measure, verdict } from "../../bench/harness/scenario.ts";

const TOP = new URL("../../", import.meta.url);

function measure(median: number, goals: Partial<Measure> = {}): Measure {
  return { name: `of ${median}`, unit: "ms", figure: figure([median]), ...goals };
}

function scenario(name: string, measures: readonly Measure[] = [measure(1)]): ScenarioReport {
  const versions = {};
  const settings = { rounds: 5, roundMs: 2_000, peers: false, full: false, commit: "0", postgresql: "18", versions };
  return { name, title: name, at: "2026-01-01T00:00:00.000Z", seconds: 1, settings, notes: [], measures };
}

const machine: Report["machine"] = {
  processor: "abacus",
  cores: 2,
  memoryGiB: 1,
  system: "linux",
  node: "v24",
  versions: {},
  pinned: true,
};

describe("figures of the bench", () => {
  it("are the median and the spread of the rounds with a value", () => {
    expect(figure([3, Number.NaN, 1, 10])).toEqual({ median: 3, least: 1, most: 10, rounds: 3 });
    expect(figure([1, 2])).toEqual({ median: 1.5, least: 1, most: 2, rounds: 2 });
  });

  it("compare two subjects round by round", () => {
    // A slow machine in the second round slows both.
    expect(ratio([2, 20, 4], [1, 10, 2])).toEqual({ median: 2, least: 2, most: 2, rounds: 3 });
  });

  it("are printed in two digits, or in whole numbers", () => {
    expect([0, 0.0123, 1, 12.34, 123.4, 12_345.6, Number.NaN].map(short)).toEqual([
      "0",
      "0.012",
      "1",
      "12",
      "123",
      "12,346",
      "–",
    ]);
  });

  it("have no exponent when rounding adds a digit", () => {
    expect([0.999, 9.97, 99.4, 99.5, 99.9, 100.4, 999.7, -99.9].map(short)).toEqual([
      "1",
      "10",
      "99",
      "100",
      "100",
      "100",
      "1,000",
      "-100",
    ]);
  });

  it("are compared with a limit and a target, in either direction", () => {
    const goals = { must: 10, aim: 5 };
    expect([4, 5, 7, 10, 11].map((median) => verdict(measure(median, goals)))).toEqual([
      "aim",
      "aim",
      "must",
      "must",
      "missed",
    ]);
    const more = { must: 5, aim: 10, more: true };
    expect([4, 5, 12].map((median) => verdict(measure(median, more)))).toEqual(["missed", "must", "aim"]);
    expect(verdict(measure(1))).toBe("–");
    expect(verdict(measure(Number.NaN, goals))).toBe("missed");
  });

  it("of several measures make a table", () => {
    const table = tableOf(scenario("one", [measure(12, { must: 10, aim: 5 })]));
    expect(table.split("\n").at(-1)).toMatch(/^\| of 12 +\| 12 ms +\| one round +\| ≤ 10 +\| ≤ 5 +\| missed +\|$/);
  });
});

describe("results of the bench", () => {
  it("replace older ones of the same scenario, in the order of the scenarios", () => {
    const older = { machine, scenarios: [scenario("heartbeats"), scenario("calls")] };
    const newer = { machine, scenarios: [scenario("calls", [measure(2)]), scenario("news")] };
    const merged = merge(older, newer).scenarios;
    expect(merged.map(({ name }) => name)).toEqual(["heartbeats", "news", "calls"]);
    expect(merged.at(-1)?.measures).toEqual([measure(2)]);
  });

  it("of another machine replace all older ones", () => {
    const newer = { machine: { ...machine, processor: "slide rule" }, scenarios: [scenario("news")] };
    expect(merge({ machine, scenarios: [scenario("heartbeats")] }, newer)).toEqual(newer);
  });

  it("in docs/performance.md and its charts equal those in docs/performance.json", async () => {
    const report = await readReport(new URL("docs/performance.json", TOP).pathname);
    if (report === undefined) throw new Error("there are no results");
    const page = await readFile(new URL("docs/performance.md", TOP), "utf8");
    expect(withResults(page, report)).toBe(page);
    const charts = chartsOf(report);
    expect(charts.map(({ file }) => file)).toContain("goals.svg");
    for (const { file, svg } of charts) expect(await readFile(new URL(`docs/charts/${file}`, TOP), "utf8")).toBe(svg);
    for (const [, file] of page.matchAll(/\]\(charts\/([^)]+)\)/g))
      expect(charts.map((one) => one.file)).toContain(file);
  });
});
