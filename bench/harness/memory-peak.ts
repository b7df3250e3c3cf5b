import { residentBytes } from "./cpu.ts";

/** The most memory that a process was seen to have, in bytes, looked at every so many milliseconds. */
export class MemoryPeak implements Disposable {
  most = 0;
  readonly #sampler: NodeJS.Timeout;

  constructor(pid: number, everyMs: number) {
    this.#sampler = setInterval(() => {
      residentBytes(pid).then(
        (bytes) => {
          this.most = Math.max(this.most, bytes);
        },
        // The process has ended, which the scenario reports.
        () => undefined,
      );
    }, everyMs);
  }

  [Symbol.dispose](): void {
    clearInterval(this.#sampler);
  }
}
