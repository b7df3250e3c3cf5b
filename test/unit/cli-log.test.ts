import { PassThrough } from "node:stream";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { createLog } from "../../src/cli/log.ts";
import { Refusal } from "../../src/domain/errors.ts";
import { HOSTILE_CHARACTERS, RAW } from "../support/hostile-text.ts";

/** A log as the program opens it, and its output. */
function openLog(logFormat: "json" | "pretty") {
  let text = "";
  const stderr = Object.assign(new PassThrough(), { fd: 2 as const, isTTY: false });
  stderr.on("data", (chunk: Buffer) => {
    text += chunk.toString();
  });
  return { log: createLog({ logLevel: "trace", logFormat }, stderr as never), written: () => text };
}

describe.each(["json", "pretty"] as const)("a log in the format %s", (format) => {
  test.each(HOSTILE_CHARACTERS)("escapes %s in fields, keys, lists, messages and errors", (_name, character) => {
    const { log, written } = openLog(format);
    const name = `ada${character}bob`;
    log.warn(
      {
        event: "task.failed",
        agentId: name,
        agentIds: [name],
        [name]: 1,
        err: new Refusal("DRAINING", name, { cause: new TypeError(name) }),
      },
      name,
    );
    log.child({ claw: name }).info({ event: "audit.call", actor: `user:${name}` }, "audit");
    expect(written()).not.toMatch(RAW);
    expect(written().split("adabob")).toHaveLength(1);
    expect(written().match(/ada.{2,12}bob/g)?.length).toBeGreaterThanOrEqual(7);
  });

  test("writes one line for each entry, whatever it contains", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary", maxLength: 200 }), (text) => {
        const { log, written } = openLog(format);
        log.info({ event: "audit.call", text }, text);
        expect(written()).not.toMatch(RAW);
        if (format === "json") expect(written().trimEnd().split("\n")).toHaveLength(1);
      }),
    );
  });
});

test("escaped JSON lines parse to the original values", () => {
  const { log, written } = openLog("json");
  const name = `ada${HOSTILE_CHARACTERS.map(([, character]) => character).join("")}`;
  log.info({ event: "audit.call", name }, "audit");
  expect(JSON.parse(written())).toMatchObject({ event: "audit.call", name, msg: "audit" });
});
