import { open } from "node:fs/promises";
import { devNull } from "node:os";
import type { Logger } from "../../common/logging/logger.ts";

/** How often the replica checks that it can open a file, in milliseconds. A check costs some 50 µs. */
const CHECK_MS = 1_000;

/** The process, or the machine, has no file descriptor left. */
const SHORTAGES: ReadonlySet<unknown> = new Set(["EMFILE", "ENFILE"]);

/**
 * Detects that the process can open no more files or sockets. Node does not report it: libuv accepts each new connection with a
 * descriptor that it holds in reserve, and closes it at once.
 */
export class OpenFilesWatch {
  readonly #log: Logger;
  readonly #open: () => Promise<unknown>;
  #timer: NodeJS.Timeout | undefined;
  #checking: Promise<void> = Promise.resolve();
  #shortages = 0;
  #short = false;

  /** @param tryOpen opens a file and closes it. Rejects with Node's error */
  constructor(log: Logger, tryOpen: () => Promise<unknown> = openAndClose) {
    this.#log = log;
    this.#open = tryOpen;
  }

  /** How many checks since the start found no free descriptor. */
  get shortages(): number {
    return this.#shortages;
  }

  start(): void {
    this.#timer = setInterval(() => {
      this.#checking = this.check();
    }, CHECK_MS).unref();
  }

  /** Checks once. Never rejects. */
  async check(): Promise<void> {
    try {
      await this.#open();
      if (this.#short) this.#log.info({ event: "process.files_available" }, "files and sockets can be opened again");
      this.#short = false;
    } catch (error) {
      if (!(error instanceof Error && "code" in error && SHORTAGES.has(error.code))) return;
      this.#shortages += 1;
      if (!this.#short) {
        this.#log.error(
          { event: "process.files_exhausted", err: error },
          "cannot open files, new connections are closed",
        );
      }
      this.#short = true;
    }
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.#checking;
  }
}

async function openAndClose(): Promise<void> {
  const file = await open(devNull, "r");
  await file.close();
}
