import { chmod, mkdtemp, rm } from "node:fs/promises";
import { join } from "node:path";
import { temporaryFolder as ownedFolder } from "../../test/support/owned-process.ts";

let made: Promise<string> | undefined;

/** Makes a new temporary folder, which is deleted when the bench ends. */
export async function temporaryFolder(name: string): Promise<string> {
  made ??= ownedFolder("bench");
  const folder = await made;
  // For root, PostgreSQL runs under another account, which needs access to the folder.
  await chmod(folder, 0o711);
  return await mkdtemp(join(folder, `${name}-`));
}

export async function removeFolder(): Promise<void> {
  if (made !== undefined) await rm(await made, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
}
