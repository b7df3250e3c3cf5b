import { describe, expect, test } from "vitest";
import { defaultDataDir, type Host } from "../../src/data-folder.ts";

const user: Host = { platform: "linux", home: "/home/ada", isRoot: false, isFitForRoot: () => false };
const root: Host = { ...user, home: "/root", isRoot: true };

describe("the default data folder", () => {
  test.each<[string, Record<string, string>, Host, string]>([
    ["Linux", {}, user, "/home/ada/.local/share/harborforge-agents"],
    ["a HOME of one's own", { HOME: "/tmp/ada" }, user, "/tmp/ada/.local/share/harborforge-agents"],
    ["XDG_DATA_HOME", { XDG_DATA_HOME: "/data" }, user, "/data/harborforge-agents"],
    ["a relative XDG_DATA_HOME", { XDG_DATA_HOME: "data" }, user, "/home/ada/.local/share/harborforge-agents"],
    ["an empty XDG_DATA_HOME", { XDG_DATA_HOME: "" }, user, "/home/ada/.local/share/harborforge-agents"],
    ["root", {}, root, "/var/lib/harborforge-agents"],
    ["root with XDG_DATA_HOME", { XDG_DATA_HOME: "/root/data" }, root, "/var/lib/harborforge-agents"],
    ["root, home open", {}, { ...root, isFitForRoot: () => true }, "/root/.local/share/harborforge-agents"],
    ["macOS", {}, { ...user, platform: "darwin" }, "/home/ada/Library/Application Support/harborforge-agents"],
    ["root on macOS", {}, { ...root, platform: "darwin" }, "/Library/Application Support/harborforge-agents"],
    [
      "Windows",
      { LOCALAPPDATA: "C:\\Users\\ada\\AppData\\Local" },
      { ...user, platform: "win32" },
      "C:\\Users\\ada\\AppData\\Local\\harborforge-agents",
    ],
  ])("%s", (_, env, host, expected) => {
    expect(defaultDataDir(env, host)).toBe(expected);
  });
});
