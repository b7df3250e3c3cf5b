import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { readSettings } from "../../src/settings/settings.ts";
import { statusText } from "../../src/status/status-command.ts";

describe("the settings", () => {
  it("have defaults for everything but the claw", () => {
    expect(readSettings({ claw: "claw-1" })).toEqual({
      claw: "claw-1",
      addresses: ["127.0.0.1:50051"],
      token: undefined,
      tls: undefined,
      agents: new Map(),
      silentRunMs: 3_600_000,
      callEndMs: 30_000,
    });
  });

  it.each([
    [undefined, "claw is missing"],
    [{}, "claw is missing"],
    [{ claw: "c", token: { source: "env", provider: "default", id: "X" } }, "token was not resolved"],
    [{ claw: "c", tls: { caFile: "/nonexistent/ca.pem" } }, "tls.caFile cannot be read"],
  ])("%j are invalid: %s", (config, problem) => {
    expect(readSettings(config)).toEqual({ problems: [expect.stringContaining(problem)] });
  });

  it("do not show the token in a problem", () => {
    expect(JSON.stringify(readSettings({ token: "hf_secret", claw: "" }))).not.toContain("hf_secret");
  });

  it("are described in the manifest, each with a hint", () => {
    const manifest = JSON.parse(readFileSync(new URL("../../openclaw.plugin.json", import.meta.url), "utf8"));
    const { properties } = manifest.configSchema;
    const leaves = Object.entries<{ description?: string; properties?: object }>(properties).flatMap(([name, value]) =>
      value.properties === undefined ? [name] : Object.keys(value.properties).map((inner) => `${name}.${inner}`),
    );
    expect(Object.keys(manifest.uiHints).sort()).toEqual(leaves.sort());
    for (const value of Object.values<{ description?: string }>(properties)) expect(value.description).toBeTruthy();
    expect(manifest.uiHints.token.sensitive).toBe(true);
    expect(manifest.configContracts.secretInputs.paths).toEqual([{ path: "token", expected: "string" }]);
  });
});

describe("the text of the status", () => {
  it("shows the connection, and each agent with its last refusal and rejection", () => {
    const agent = {
      gatewayId: "main",
      agentId: "claw-1/main",
      shown: "exhausted (billing)",
      service: "exhausted",
      presence: "beating",
      runs: 0,
      refusal: "billing at 2026-12-01T00:00:00.000Z (402)",
      rejection: "AGENT_NOT_FOUND: agent_id does not exist",
    };
    const report = {
      claw: "claw-1",
      addresses: ["127.0.0.1:50051"],
      connection: { state: "waiting", error: "connection refused" },
      problems: [],
      agents: [agent],
    };
    const text = statusText(report);
    expect(text).toContain("connection  waiting: connection refused\n");
    expect(text).toMatch(/main +claw-1\/main +exhausted \(billing\) +exhausted +beating +0\n/);
    expect(text).toContain("main: last refusal of a provider: billing");
    expect(text).toContain("main: last rejection of the service: AGENT_NOT_FOUND");
  });

  it("shows no control characters", () => {
    expect(statusText({ claw: "a\u001b[2Jb\u202e" })).toMatch(/^claw {8}a�\[2Jb�$/m);
  });

  it.each([undefined, 7, {}, { agents: "x" }])("is text for the report %j", (report) => {
    expect(statusText(report)).toContain("connection");
  });
});
