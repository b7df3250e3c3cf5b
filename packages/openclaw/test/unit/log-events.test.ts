import { readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { LEVELS, PluginLog } from "../../src/gateway/log.ts";

it("documents every event of the log", () => {
  const page = readFileSync(new URL("../../../../docs/openclaw.md", import.meta.url), "utf8");
  expect(Object.keys(LEVELS).filter((event) => !page.includes(`\`${event}\``))).toEqual([]);
});

it("writes facts as JSON, so that a name cannot begin a line", () => {
  const lines: string[] = [];
  const write = (line: string): void => void lines.push(line);
  new PluginLog({ info: write, warn: write, error: write }).write("agents.changed", "x", {
    id: "a\nplugin.failed",
    none: undefined,
  });
  expect(lines).toEqual(['agents.changed: x id="a\\nplugin.failed"']);
});

it("lets no error of the gateway's log out", () => {
  const fail = (): never => {
    throw new Error("no log");
  };
  const log = new PluginLog({ info: fail, warn: fail, error: fail });
  expect(() => log.safely("test", fail)).not.toThrow();
});
