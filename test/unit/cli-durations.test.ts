import { expect, test } from "vitest";
import { runCli } from "../support/cli.ts";

test.each([
  ["agents watch", ["agents", "watch"]],
  ["fleet --watch", ["fleet", "--watch"]],
  ["beat", ["beat", "bob-1"]],
])("%s rejects a duration that a timer cannot wait for", async (_, command) => {
  const { code, stderr } = await runCli([...command, "--duration", "25d", "--address", "127.0.0.1:1"]);
  expect(code).toBe(2);
  expect(stderr).toContain("It must be a duration from 1ms to 576h");
});
