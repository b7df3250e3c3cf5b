import { expect, test } from "vitest";
import { lastComplaint } from "../../src/postgres-process.ts";
import { settingArguments } from "../../src/server-settings.ts";

test("the last complaint is the one that ended it, without what precedes it", () => {
  const said = [
    "2026-01-01 00:00:00.000 UTC [1] LOG:  starting PostgreSQL 18",
    '2026-01-01 00:00:00.001 UTC [1] FATAL:  could not create lock file "postmaster.pid": No space left on device',
    "2026-01-01 00:00:00.001 UTC [1] LOG:  database system is shut down",
    "",
  ].join("\n");
  expect(lastComplaint(said)).toBe('could not create lock file "postmaster.pid": No space left on device');
  expect(lastComplaint("initdb: error: could not create directory: Permission denied\n")).toBe(
    "could not create directory: Permission denied",
  );
  expect(lastComplaint("all is well\n")).toBeUndefined();
});

test("settings win over the defaults, but nothing over the port and the address stays this machine's", () => {
  const args = settingArguments({ fsync: "off", port: "1" }, 40_000);
  expect(args).toContain("fsync=off");
  expect(args).not.toContain("fsync=on");
  expect(args).toContain("port=40000");
  expect(args).not.toContain("port=1");
  expect(args).toContain("listen_addresses=127.0.0.1");
  expect(args.filter((_, index) => index % 2 === 0)).toEqual(args.filter((_, index) => index % 2 === 0).fill("-c"));
});
