import { pino } from "pino";
import { describe, expect, test } from "vitest";
import { openFilesLimit } from "../../src/cli/open-files.ts";
import { connectionsWithin, openFilesFor } from "../../src/rpc/sockets/open-files.ts";
import { OpenFilesWatch } from "../../src/server/open-files-watch.ts";

const failure = (code: string): Error => Object.assign(new Error(code), { code });

describe("the limit of open files", () => {
  test("is what the system says", () => {
    const limit = openFilesLimit(process);
    expect(limit === undefined || limit > 0).toBe(true);
    expect(openFilesLimit({ report: { ...process.report, getReport: () => ({}) } })).toBeUndefined();
    const of = (soft: unknown) =>
      openFilesLimit({ report: { ...process.report, getReport: () => ({ userLimits: { open_files: { soft } } }) } });
    expect(of(1_024)).toBe(1_024);
    expect(of("unlimited")).toBeUndefined();
  });

  test("leaves descriptors for the database and for files", () => {
    expect(connectionsWithin(openFilesFor(50_000))).toBe(50_000);
    expect(connectionsWithin(1_024)).toBe(896);
    expect(connectionsWithin(64)).toBe(32);
    expect(connectionsWithin(1)).toBe(1);
  });
});

describe("the watch of open files", () => {
  test("logs the begin and the end of a shortage once, and counts the checks that found it", async () => {
    const logged: string[] = [];
    let fails: Error | undefined;
    const watch = new OpenFilesWatch(
      pino({ level: "info" }, { write: (line: string) => void logged.push(line) }),
      () => (fails === undefined ? Promise.resolve() : Promise.reject(fails)),
    );
    await watch.check();
    fails = failure("EMFILE");
    await watch.check();
    fails = failure("ENFILE");
    await watch.check();
    fails = failure("EACCES");
    await watch.check();
    expect(watch.shortages).toBe(2);
    fails = undefined;
    await watch.check();
    await watch.check();
    expect(logged.map((line) => JSON.parse(line).event)).toEqual([
      "process.files_exhausted",
      "process.files_available",
    ]);
    expect(watch.shortages).toBe(2);
    await watch.close();
  });
});
