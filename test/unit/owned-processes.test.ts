import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { checkout } from "../support/program.ts";

/** The module itself, and the processes that its owner starts on a system without `/proc`. */
const ALLOWED = ["test/support/owned-process.ts", "test/support/left-behind.ts"];

const PACKAGES = readdirSync(join(checkout, "packages")).map((name) => `packages/${name}/test`);

const FILES = ["test", "scripts", "bench", ...PACKAGES].flatMap((folder) =>
  (existsSync(join(checkout, folder)) ? readdirSync(join(checkout, folder), { recursive: true, encoding: "utf8" }) : [])
    .filter((name) => name.endsWith(".ts"))
    .map((name) => `${folder}/${name.replaceAll("\\", "/")}`)
    .filter((name) => !ALLOWED.includes(name) && name !== "test/unit/owned-processes.test.ts"),
);

const filesWith = (pattern: RegExp): string[] =>
  FILES.filter((name) => pattern.test(readFileSync(join(checkout, name), "utf8")));

describe("tests, scripts and the bench", () => {
  test("start processes through test/support/owned-process.ts, which ends them with the process that started them", () => {
    expect(FILES.length).toBeGreaterThan(100);
    expect(filesWith(/^import (?!type )[^;]*from "(node:)?child_process";/m)).toEqual([]);
    expect(filesWith(/from "@lydell\/node-pty"/)).toEqual(["test/support/pseudo-terminal.ts"]);
  });

  test("make temporary folders through it, too", () => {
    expect(filesWith(/mkdtemp(Sync)?\(\s*join\(\s*tmpdir\(\)/)).toEqual([]);
  });
});
