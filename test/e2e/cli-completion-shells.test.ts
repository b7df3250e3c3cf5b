import { mkdir, rm } from "node:fs/promises";
import { delimiter, dirname, join } from "node:path";
import { afterAll, beforeAll, describe, test } from "vitest";
import { expectCompletion, hasShell, SHELLS } from "../support/completing-shell.ts";
import { temporaryFolder } from "../support/owned-process.ts";
import { checkout } from "../support/program.ts";

let home = "";
beforeAll(async () => {
  home = await temporaryFolder("completion");
});
afterAll(() => rm(home, { recursive: true, force: true }));

describe.each(SHELLS)("in %s", (shell) => {
  test("the Tab key completes the command of a checkout", { timeout: 90_000 }, async ({ skip }) => {
    if (!hasShell(shell)) skip(`there is no ${shell} here`);
    const path = [join(checkout, "bin"), dirname(process.execPath), process.env.PATH].join(delimiter);
    await mkdir(join(home, shell));
    await expectCompletion(shell, { home: join(home, shell), path });
  });
});
