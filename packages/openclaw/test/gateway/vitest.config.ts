import { defineConfig } from "vitest/config";

// A suite of its own: it installs and starts a real OpenClaw gateway, which takes minutes, 650 MB and up to 2 GB of memory.
export default defineConfig({
  test: {
    root: new URL("../../../..", import.meta.url).pathname,
    include: ["packages/openclaw/test/gateway/**/*.gateway.ts"],
    globalSetup: ["test/support/global-setup.ts"],
    provide: { cases: "others" },
    // Tells of each case when it ends: the whole takes long.
    reporters: ["verbose"],
    pool: "forks",
    // One gateway at a time.
    maxWorkers: 1,
    testTimeout: 300_000,
    hookTimeout: 900_000,
    teardownTimeout: 60_000,
  },
});
