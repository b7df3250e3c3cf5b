#!/usr/bin/env node
// The command. It is JavaScript for any Node, so that an older one gets as far as the check, and no types are stripped before the
// cache is on. In a checkout it runs the sources, in a package the compiled files: packing replaces the ending.
"use strict";

/** `engines` of the package. */
const NEEDED = { major: 22, minor: 13 };

const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
if (major < NEEDED.major || (major === NEEDED.major && minor < NEEDED.minor)) {
  process.stderr.write(
    `error: harborforge-agents needs Node.js ${NEEDED.major}.${NEEDED.minor} or newer. This is Node.js ${process.versions.node}: install a newer one.\n`,
  );
  process.exitCode = 1;
} else {
  cacheCompiledCode(process.env);
  import("../src/main.ts");
}

/**
 * Lets Node keep compiled code between runs, and in a checkout the sources without their types: the next command starts in
 * about half of the time. `NODE_COMPILE_CACHE` names another folder, `NODE_DISABLE_COMPILE_CACHE=1` turns it off.
 *
 * The folder is `harborforge-agents` in `$XDG_CACHE_HOME`, else in `~/.cache`. Node runs the code that it finds there, so the
 * folder must belong to this user, and no other user may write to it. Node's default, a folder in /tmp, is not that safe.
 * Without such a folder there is no cache.
 *
 * @param {NodeJS.ProcessEnv} env
 */
function cacheCompiledCode(env) {
  // Node has turned it on already.
  if (env.NODE_COMPILE_CACHE) return;
  const { mkdirSync, statSync } = require("node:fs");
  const { isAbsolute, join } = require("node:path");
  /** @param {string} folder */
  const isPrivate = (folder) => {
    const { uid, mode } = statSync(folder);
    return (process.getuid === undefined || uid === process.getuid()) && (mode & 0o022) === 0;
  };
  try {
    const home = env.HOME || require("node:os").homedir();
    const base = isAbsolute(env.XDG_CACHE_HOME ?? "") ? env.XDG_CACHE_HOME : join(home, ".cache");
    const folder = join(base, "harborforge-agents");
    // A home that does not exist is not created.
    if (!isPrivate(home)) return;
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    if (isPrivate(folder)) require("node:module").enableCompileCache(join(folder, "compiled"));
  } catch {
    // It only saves time.
  }
}
