import { randomUUID } from "node:crypto";
import { closeSync, fsyncSync, openSync, renameSync, rmSync, statSync, writeSync } from "node:fs";
import { CommandFailure } from "./call-failure.ts";
import { EXIT_WRONG_SETTING } from "./exit-codes.ts";
import { printable } from "./terminal/printable.ts";

const MODE = 0o600;

/** A file for a secret that does not exist yet. Without `write` nothing of it remains. */
export interface SecretFile extends Disposable {
  readonly path: string;
  /** Whether it replaces a file. */
  readonly replaces: boolean;
  /** Writes the whole file, readable by this user only. */
  write(text: string): void;
}

/**
 * Reserves a file for a secret before the secret is made, so that no secret is made that cannot be written.
 *
 * @param overwrite whether an existing file may be replaced. It stays as it is until `write`.
 * @throws CommandFailure if it exists already, or cannot be created
 */
export function reserveSecretFile(path: string, overwrite: boolean): SecretFile {
  const replaces = overwrite && isFile(path);
  const reserved = replaces ? `${path}.${randomUUID()}.tmp` : path;
  const file = open(reserved, path);
  let isWritten = false;
  return {
    path,
    replaces,
    write(text) {
      writeSync(file, text);
      fsyncSync(file);
      if (replaces) renameSync(reserved, path);
      isWritten = true;
    },
    [Symbol.dispose]() {
      closeSync(file);
      if (!isWritten) rmSync(reserved, { force: true });
    },
  };
}

function isFile(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isFile() === true;
}

/** Never opens a file that exists. */
function open(reserved: string, path: string): number {
  try {
    return openSync(reserved, "wx", MODE);
  } catch (error) {
    const shown = printable(path);
    if (error instanceof Error && "code" in error && error.code === "EEXIST") {
      const isReplaceable = isFile(path);
      const advice = isReplaceable
        ? "Choose another file, or replace it with --overwrite"
        : "It is no file: choose another path";
      throw wrong(`${shown} exists already. ${advice}.`);
    }
    throw wrong(`${shown} cannot be created: ${printable(error instanceof Error ? error.message : String(error))}.`);
  }
}

function wrong(sentence: string): CommandFailure {
  return new CommandFailure(sentence, EXIT_WRONG_SETTING);
}
