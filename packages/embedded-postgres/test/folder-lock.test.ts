import { once } from "node:events";
import { rm } from "node:fs/promises";
import { expect, onTestFinished, test } from "vitest";
import { spawn, temporaryFolder } from "../../../test/support/owned-process.ts";

const MODULES = new URL("../src/", import.meta.url);

/** Locks the folder and stays, or says why it cannot. */
const LOCKER = `
import { dataFolder } from ${JSON.stringify(new URL("data-folder.ts", MODULES))};
import { lockFolder } from ${JSON.stringify(new URL("folder-lock.ts", MODULES))};
await lockFolder(dataFolder(process.env.FOLDER)).then(() => console.log("locked"), ({ reason }) => console.log(reason));
setInterval(() => undefined, 60_000);
`;

test("the lock of a data folder is granted to one of several processes, and ends with that process", async () => {
  const folder = await temporaryFolder("lock");
  onTestFinished(() => rm(folder, { recursive: true }));
  const start = async () => {
    const child = spawn(process.execPath, ["--input-type=module", "--eval", LOCKER], {
      env: { FOLDER: folder },
      stdio: ["ignore", "pipe", "inherit"],
    });
    onTestFinished(() => void child.kill("SIGKILL"));
    const [said] = await once(child.stdout, "data");
    return { child, outcome: String(said).trim() };
  };
  const started = await Promise.all([start(), start(), start()]);
  expect(started.map(({ outcome }) => outcome).toSorted()).toEqual(["IN_USE", "IN_USE", "locked"]);
  const holder = started.find(({ outcome }) => outcome === "locked");
  const ended = holder && once(holder.child, "exit");
  holder?.child.kill("SIGKILL");
  await ended;
  expect((await start()).outcome).toBe("locked");
});
