import { expect, test } from "vitest";
import { lastErrorLine } from "../../src/postgres-process.ts";
import { settingArguments } from "../../src/server-settings.ts";

test("finds the last error in the output, without its prefix", () => {
  const said = [
    "2026-01-01 00:00:00.000 UTC [1] LOG:  starting PostgreSQL 18",
    '2026-01-01 00:00:00.001 UTC [1] FATAL:  could not create lock file "postmaster.pid": No space left on device',
    "2026-01-01 00:00:00.001 UTC [1] LOG:  database system is shut down",
    "",
  ].join("\n");
  expect(lastErrorLine(said)).toBe('could not create lock file "postmaster.pid": No space left on device');
  expect(lastErrorLine("initdb: error: could not create directory: Permission denied\n")).toBe(
    "could not create directory: Permission denied",
  );
  expect(lastErrorLine("all is well\n")).toBeUndefined();
});

test("settings override the defaults, but not the port, and the address stays on this machine", () => {
  const args = settingArguments({ fsync: "off", port: "1" }, 40_000);
  expect(args).toContain("fsync=off");
  expect(args).not.toContain("fsync=on");
  expect(args).toContain("port=40000");
  expect(args).not.toContain("port=1");
  expect(args).toContain("listen_addresses=127.0.0.1");
  expect(args.filter((_, index) => index % 2 === 0)).toEqual(args.filter((_, index) => index % 2 === 0).fill("-c"));
});
