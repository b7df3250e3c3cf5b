import { chmod, mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { cleartextAddresses, readConnection } from "../../src/cli/connection/connection.ts";
import { profileFile } from "../../src/cli/connection/profile.ts";
import { temporaryFolder } from "../support/owned-process.ts";

let folder = "";

beforeEach(async () => {
  folder = await temporaryFolder("profile");
});

afterEach(async () => {
  await rm(folder, { recursive: true });
});

async function profiles(content: unknown, mode = 0o600): Promise<void> {
  const path = join(folder, "harborforge-agents", "profiles.json");
  await mkdir(join(folder, "harborforge-agents"), { recursive: true });
  await writeFile(path, typeof content === "string" ? content : JSON.stringify(content));
  await chmod(path, mode);
}

const flags = { timeout: 10_000 };
const read = (more: object = {}, env: Record<string, string> = {}) =>
  readConnection({ ...flags, ...more }, { XDG_CONFIG_HOME: folder, ...env });

const two = {
  default: "local",
  profiles: { local: { address: "127.0.0.1:1234" }, prod: { address: "https://agents.example.com", token: "secret" } },
};

describe("the address of the service", () => {
  test("defaults to the gRPC listener of this machine", () => {
    expect(read()).toEqual({
      addresses: ["http://127.0.0.1:50051"],
      token: undefined,
      ca: undefined,
      identity: undefined,
      timeoutMs: 10_000,
    });
  });

  test("comes from flags first, then from the environment, then from a profile", async () => {
    await profiles(two);
    const env = { HARBORFORGE_ADDRESS: "env:1" };
    expect(read().addresses).toEqual(["http://127.0.0.1:1234"]);
    expect(read({}, env).addresses).toEqual(["http://env:1"]);
    expect(read({ address: "http://flag:1" }, env).addresses).toEqual(["http://flag:1"]);
    expect(read({ profile: "prod" })).toMatchObject({ addresses: ["https://agents.example.com"], token: "secret" });
    expect(read({}, { HARBORFORGE_PROFILE: "prod" })).toMatchObject({ token: "secret" });
    expect(read({}, { HARBORFORGE_ADDRESS: "" }).addresses).toEqual(["http://127.0.0.1:1234"]);
  });

  test("may be several, from each of these sources, each once", async () => {
    const two = ["http://a:1", "https://b:2"];
    expect(read({ address: "a:1, https://b:2,http://a:1" }).addresses).toEqual(two);
    expect(read({}, { HARBORFORGE_ADDRESS: "a:1,https://b:2" }).addresses).toEqual(two);
    await profiles({ profiles: { default: { address: "a:1,https://b:2" } } });
    expect(read().addresses).toEqual(two);
    expect(() => read({ address: "a:1,," })).toThrow(/^--address must be http/);
    expect(() => read({ address: "a:1,ftp://b" })).toThrow(/^--address must be http.+ or several with commas/);
  });

  test("of another service does not get the profile's token", async () => {
    await profiles({ ...two, default: "prod" });
    expect(read().token).toBe("secret");
    expect(read({ address: "http://elsewhere:1" }).token).toBeUndefined();
    expect(read({}, { HARBORFORGE_ADDRESS: "elsewhere:1" }).token).toBeUndefined();
    expect(read({ address: "http://elsewhere:1", profile: "prod" }).token).toBe("secret");
  });

  test("is in a file in the user's configuration folder", () => {
    expect(profileFile({ HOME: "/home/ada" })).toBe("/home/ada/.config/harborforge-agents/profiles.json");
    expect(profileFile({ HOME: "/home/ada", XDG_CONFIG_HOME: "/x" })).toBe("/x/harborforge-agents/profiles.json");
    expect(profileFile({ HOME: "/home/ada", XDG_CONFIG_HOME: "relative" })).toMatch(/^\/home\/ada\/\.config/);
  });
});

describe("a token", () => {
  test("comes from flags, the environment or files", async () => {
    const tokenFile = join(folder, "token");
    await writeFile(tokenFile, "from-file\n", { mode: 0o600 });
    expect(read({ token: "flag" }, { HARBORFORGE_TOKEN: "env" }).token).toBe("flag");
    expect(read({}, { HARBORFORGE_TOKEN: "env" }).token).toBe("env");
    expect(read({ tokenFile }, { HARBORFORGE_TOKEN: "env" }).token).toBe("from-file");
    expect(read({}, { HARBORFORGE_TOKEN_FILE: tokenFile }).token).toBe("from-file");
    await profiles({ profiles: { default: { tokenFile: "../token" } } }, 0o644);
    expect(read().token).toBe("from-file");
  });

  test("in a file that others may read is rejected, with a solution", async () => {
    await profiles(two, 0o640);
    const path = join(folder, "harborforge-agents", "profiles.json");
    expect(() => read()).toThrow(
      `${path} contains a token and is readable by others (mode 640). Run "chmod 600 ${path}"`,
    );
    const tokenFile = join(folder, "token");
    await writeFile(tokenFile, "x", { mode: 0o600 });
    await chmod(tokenFile, 0o604);
    expect(() => read({ tokenFile, profile: undefined }, { XDG_CONFIG_HOME: "/nonexistent" })).toThrow("mode 604");
  });

  test("that cannot be a header is rejected, and not repeated in the error", () => {
    for (const token of ["two words", "line\nbreak", ""]) {
      expect(() => read({ token })).toThrow(/^The token must be printable ASCII without spaces\.$/);
    }
  });

  test("in cleartext goes only to this machine, or with a warning", () => {
    const cleartext = (...addresses: string[]) => cleartextAddresses({ addresses, token: "x" });
    expect(cleartext("http://10.0.0.1:50051")).toEqual(["http://10.0.0.1:50051"]);
    expect(cleartext("https://10.0.0.1:50051")).toEqual([]);
    for (const host of ["localhost", "127.0.0.1", "127.1.2.3", "[::1]"]) {
      expect(cleartext(`http://${host}:50051`)).toEqual([]);
    }
    expect(cleartext("https://a:1", "http://b:1", "http://localhost:1")).toEqual(["http://b:1"]);
    expect(cleartextAddresses({ addresses: ["http://10.0.0.1:1"], token: undefined })).toEqual([]);
  });
});

describe("an invalid profile file is rejected in one line", () => {
  test.each([
    ["{", /profiles\.json is not valid JSON\. /],
    [[], /the file must be an object/],
    [{ profile: {} }, /the file has the unknown field "profile"\. Use default, profiles/],
    [{ profiles: { default: { adress: "x" } } }, /profile default has the unknown field "adress"\. Use address, token/],
    [{ profiles: { default: { address: 1 } } }, /profile default, address must be a non-empty string/],
    [{ default: "x", profiles: { a: {}, b: {} } }, /The profile "x" does not exist in .+ Existing profiles: a, b\./],
    [{ profiles: { default: { address: "ftp://x" } } }, /The profile's address must be http/],
    [{ profiles: { default: { token: "a", tokenFile: "b" } } }, /has both token and tokenFile/],
    [{ profiles: { default: { tokenFile: "gone" } } }, /The token file .+gone does not exist/],
    [{ profiles: { default: { cert: "cert.pem" } } }, /--cert and --key must be used together/],
    [{ profiles: { default: { ca: "gone.pem" } } }, /The file .+gone\.pem does not exist/],
  ])("%j", async (content, message) => {
    await profiles(content);
    expect(() => read()).toThrow(message);
    expect(() => read()).toThrow(/^[^\n]+$/);
  });

  test("when the named profile is missing", () => {
    expect(() => read({ profile: "prod" })).toThrow(/^The profile "prod" does not exist, because the file /);
    expect(() => read({}, { HARBORFORGE_ADDRESS: "ftp://x" })).toThrow(/^HARBORFORGE_ADDRESS must be http/);
  });

  test("when the name is __proto__", async () => {
    await profiles(two);
    expect(() => read({ profile: "__proto__" })).toThrow(/The profile "__proto__" does not exist/);
  });
});
