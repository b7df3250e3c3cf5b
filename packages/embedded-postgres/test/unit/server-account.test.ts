import { describe, expect, test } from "vitest";
import { chooseServerAccount } from "../../src/server-account.ts";

const root = "root:x:0:0:root:/root:/bin/bash";
const nobody = "nobody:x:65534:65533:nobody:/nonexistent:/usr/sbin/nologin";
const postgres = "postgres:x:101:104::/var/lib/postgresql:/bin/bash";
const own = "harborforge-agents:x:990:991::/var/lib/harborforge-agents:/usr/sbin/nologin";

describe("the account PostgreSQL runs as for root", () => {
  test.each([
    ["one made for it first", [root, nobody, postgres, own], { name: "harborforge-agents", uid: 990, gid: 991 }],
    ["then PostgreSQL's", [root, nobody, postgres], { name: "postgres", uid: 101, gid: 104 }],
    ["then nobody", [root, nobody], { name: "nobody", uid: 65_534, gid: 65_533 }],
    [
      "never root by another name",
      [root, "postgres:x:0:0::/:/bin/sh", nobody],
      { name: "nobody", uid: 65_534, gid: 65_533 },
    ],
  ])("%s", (_, lines, expected) => {
    expect(chooseServerAccount(undefined, `${lines.join("\n")}\n`)).toEqual(expected);
  });

  test("is the owner of an existing cluster, with or without a name", () => {
    const passwd = [root, nobody, postgres, own].join("\n");
    expect(chooseServerAccount(65_534, passwd)).toEqual({ name: "nobody", uid: 65_534, gid: 65_533 });
    expect(chooseServerAccount(4_711, passwd)).toEqual({ name: "4711", uid: 4_711, gid: 4_711 });
  });

  test("throws an error that names the candidates if none exists", () => {
    expect(() => chooseServerAccount(undefined, root)).toThrow(/harborforge-agents, postgres, nobody/);
  });
});
