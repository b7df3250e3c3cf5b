import { join } from "node:path";
import { promisify } from "node:util";
import { expect, it } from "vitest";
import { execFile } from "../../../test/support/owned-process.ts";

const run = promisify(execFile);
const MOST_BYTES = 20_000_000;

it("grows by 20 MB at most in an hour of turns without the service", async () => {
  const program = join(import.meta.dirname, "hour-without-service.ts");
  const { stdout } = await run(process.execPath, ["--expose-gc", program]);
  expect(Number(stdout.trim())).toBeLessThan(MOST_BYTES);
}, 300_000);
