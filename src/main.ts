#!/usr/bin/env node
// No static import: an older Node must get as far as the check, and the cache must be on before the program is loaded.

/** What is still open this long after a command is done is not waited for, in milliseconds. */
const LINGER_MS = 1_000;
/** `engines` of the package. */
const NEEDED = { major: 22, minor: 13 };

const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
if (major < NEEDED.major || (major === NEEDED.major && minor < NEEDED.minor)) {
  process.stderr.write(
    `error: harborforge-agents needs Node.js ${NEEDED.major}.${NEEDED.minor} or newer, and this is Node.js ${process.versions.node}. Install a newer one (https://nodejs.org), and try again.\n`,
  );
  process.exitCode = 1;
} else {
  const { cacheCompiledCode } = await import("./cli/compile-cache.ts");
  cacheCompiledCode(process.env);
  const { runProgram } = await import("./cli/program.ts");
  process.exitCode = await runProgram(process.argv.slice(2), process);
  // The process ends by itself, since nothing is left open. If something is, the process does not wait long for it.
  setTimeout(() => process.exit(), LINGER_MS).unref();
}

// Without an import or export this file would be no module, and could not wait at its top.
export {};
