import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, expectTypeOf, test } from "vitest";
import { LOG_EVENTS, type LogEvent } from "../../common/logging/log-events.ts";
import type { Facts, Logger } from "../../common/logging/logger.ts";
import { POSTGRES_EVENTS } from "../../packages/embedded-postgres/src/log-events.ts";
import { logEventsTable } from "../../scripts/log-events-table.ts";
import { section } from "../support/fenced-blocks.ts";

const root = join(import.meta.dirname, "../..");

/** The sources of the program, by path. */
const sources = new Map(
  ["common", "src", "packages/embedded-postgres/src"].flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
      .filter((name) => name.endsWith(".ts") && !name.endsWith("log-events.ts"))
      .map((name): [string, string] => [join(folder, name), readFileSync(join(root, folder, name), "utf8")]),
  ),
);

const levels: readonly object[] = [...Object.values(LOG_EVENTS), ...Object.values(POSTGRES_EVENTS)];
const names = levels.flatMap((events) => Object.keys(events));

/** A call of a log: its facts begin with the event, and its message is a literal. */
const CALL = /\b(?:log|lines)\??\s*\.(?:fatal|error|warn|info|debug)\(/g;
const WELL_FORMED =
  /^\s*\{\s*event: "([^"]+)"(?:(?!\.(?:fatal|error|warn|info|debug)\()[\s\S])*?\},\s*(?:"([^"]*)"|`([^`]*)`),?\s*\)/;

interface Call {
  readonly at: string;
  readonly event: string | undefined;
  readonly message: string;
}

const calls = [...sources].flatMap(([path, text]): Call[] =>
  [...text.matchAll(CALL)].map(({ 0: call, index }) => {
    const [, event, literal, template = ""] = WELL_FORMED.exec(text.slice(index + call.length)) ?? [];
    return { at: `${path}: ${text.slice(index, index + 60)}`, event, message: literal ?? template };
  }),
);

test("finds the calls of the log", () => {
  expect(calls.length).toBeGreaterThan(50);
});

test("every call of the log begins with an event", () => {
  expect(calls.filter(({ event }) => event === undefined).map(({ at }) => at)).toEqual([]);
});

test("every event is logged, and every logged event is in a table", () => {
  expect([...new Set(calls.map(({ event }) => event))].toSorted()).toEqual(names.toSorted());
});

test("names are unique, and of the form part.what_happened", () => {
  expect(new Set(names).size).toBe(names.length);
  expect(names.filter((name) => !/^[a-z]+\.[a-z]+(_[a-z]+)*$/.test(name))).toEqual([]);
});

test("messages have at most ten words and no sentence after a colon", () => {
  const wrong = calls.filter(({ message }) => message === "" || message.split(" ").length > 10 || /[:;]/.test(message));
  expect(wrong.map(({ message }) => message)).toEqual([]);
});

test("only the log of the program makes a logger of pino, whose methods take any fields", () => {
  expect([...sources].filter(([, text]) => /from "pino"/.test(text)).map(([path]) => path)).toEqual(["src/cli/log.ts"]);
});

test("docs/operations.md equals the table of events", () => {
  const page = readFileSync(join(root, "docs/operations.md"), "utf8");
  expect(section(page, "log events").trim()).toBe(logEventsTable());
});

describe("the type of a log", () => {
  test("takes only the events of the method's level", () => {
    expectTypeOf<Facts<"warn">>().toExtend<Parameters<Logger["warn"]>[0]>();
    expectTypeOf<Facts<"info">>().not.toExtend<Parameters<Logger["warn"]>[0]>();
    expectTypeOf<{ event: "lease.eaten" }>().not.toExtend<Parameters<Logger["warn"]>[0]>();
    expectTypeOf<{ err: Error }>().not.toExtend<Parameters<Logger["warn"]>[0]>();
    expectTypeOf<"lease.eaten">().not.toExtend<LogEvent>();
  });
});
