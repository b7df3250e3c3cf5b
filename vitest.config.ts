import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["{test,packages}/**/*.test.ts"],
    exclude: ["**/node_modules/**"],
    // Once for the whole run: one PostgreSQL, whose template every test file clones.
    globalSetup: ["test/support/global-setup.ts"],
    // Processes, not threads: a file that dies takes no other with it, and SIGTERM and uid are a process's own.
    pool: "forks",
    // Of tests that say that they may run side by side: those wait for leases mostly.
    maxConcurrency: 5,
    testTimeout: 30_000,
    hookTimeout: 60_000,
    // A cluster with work in its buffers stops in its own time.
    teardownTimeout: 60_000,
  },
});
