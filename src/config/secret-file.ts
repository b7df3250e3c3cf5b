import { readFileSync } from "node:fs";

/** The largest file of a secret, in bytes: a wrong path should not read a disk. */
const LARGEST_BYTES = 65_536;

/**
 * The secret in a file, without white space around it, as secrets of Docker and Kubernetes have it.
 *
 * @throws Error whose message completes «the file …», without the content
 */
export function readSecret(path: string): string {
  let bytes: Buffer;
  try {
    bytes = readFileSync(path);
  } catch (error) {
    const code = error instanceof Error && "code" in error ? String(error.code) : "unknown";
    throw new Error(code === "ENOENT" ? "does not exist" : `is not readable (${code})`);
  }
  if (bytes.length > LARGEST_BYTES) throw new Error(`has more than ${LARGEST_BYTES} bytes`);
  const text = bytes.toString("utf8").trim();
  if (text === "") throw new Error("is empty");
  return text;
}
