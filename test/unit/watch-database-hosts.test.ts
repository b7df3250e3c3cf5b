import { describe, expect, it } from "vitest";
import { DatabaseHosts } from "../../src/storage/database-hosts.ts";

describe("the hosts of a database URL", () => {
  it.each([
    ["postgres://one/db", [["one", 5432]], "postgres://one:5432/db"],
    [
      "postgres://u:p@one:1,two:2,three/db",
      [
        ["one", 1],
        ["two", 2],
        ["three", 5432],
      ],
      "postgres://u:p@one:1/db",
    ],
    [
      "postgresql://u:p@ss@[::1]:7,[fe80::2]/db",
      [
        ["::1", 7],
        ["fe80::2", 5432],
      ],
      "postgresql://u:p@ss@[::1]:7/db",
    ],
    [
      "postgres://a:1,b:2/db?target_session_attrs=read-write&sslmode=require",
      [
        ["a", 1],
        ["b", 2],
      ],
      "postgres://a:1/db?sslmode=require",
    ],
    [
      "postgres://u@/db?host=a,b&port=1,2",
      [
        ["a", 1],
        ["b", 2],
      ],
      "postgres://u@a:1/db",
    ],
    [
      "postgres:///db?host=a%2Cb&port=6",
      [
        ["a", 6],
        ["b", 6],
      ],
      "postgres://a:6/db",
    ],
  ] as const)("%s", (url, hosts, first) => {
    const parsed = new DatabaseHosts(url);
    expect(parsed.hosts).toEqual(hosts.map(([host, port]) => ({ host, port })));
    expect(parsed.several).toBe(hosts.length > 1);
    const [one] = parsed.hosts;
    expect(one && parsed.urlOf(one)).toBe(first);
  });

  it("stay unchanged when there is only one", () => {
    for (const url of [
      "postgres:///db",
      "postgres://%2Ftmp%2Fsocket/db",
      "postgres://u:p@one/db?sslmode=verify-full",
    ]) {
      expect(new DatabaseHosts(url).firstUrl).toBe(url);
    }
  });

  it("are reported with the reason why each cannot be used", async () => {
    const hosts = new DatabaseHosts("postgres://u@127.0.0.1:1,127.0.0.1:2/db");
    await expect(hosts.writable()).rejects.toMatchObject({
      code: "08001",
      message: expect.stringMatching(/no database host is writable \(127\.0\.0\.1: .*ECONNREFUSED.*; 127/),
    });
  });
});
