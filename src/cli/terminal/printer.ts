import type { Host, OutputStream } from "../host.ts";
import { type Paint, paintFor } from "./paint.ts";

/** The reader closed the output (`| head`). This is not a failure. */
export class OutputClosed extends Error {
  override readonly name = "OutputClosed";
}

/** Error codes of a full file system: the output is incomplete. */
const FULL: ReadonlySet<unknown> = new Set(["ENOSPC", "EDQUOT", "EFBIG", "EIO"]);
const DEFAULT_SIZE = { columns: 80, rows: 24 };

/** Standard output or standard error of a command. */
export class Printer {
  /** Whether it is a terminal that can move its cursor, so that tables can be redrawn. */
  readonly isScreen: boolean;
  readonly paint: Paint;
  readonly #stream: OutputStream;
  #isClosed = false;
  #failure: Error | undefined;
  #whenClosed: () => void = () => undefined;

  constructor(stream: OutputStream, env: Host["env"]) {
    this.#stream = stream;
    this.isScreen = stream.isTTY === true && env.TERM !== "dumb";
    this.paint = paintFor(stream, env);
    stream.on("error", (error: Error) => {
      this.#isClosed = true;
      this.#noteFailure(error);
      this.#whenClosed();
    });
  }

  /** The current width of the screen; undefined without a screen. */
  get columns(): number | undefined {
    return this.isScreen ? this.#stream.columns || DEFAULT_SIZE.columns : undefined;
  }

  get rows(): number {
    return this.#stream.rows || DEFAULT_SIZE.rows;
  }

  /**
   * Prints a text unchanged. Resolves when the stream accepts more.
   *
   * @throws OutputClosed
   */
  print(text: string): Promise<void> {
    if (this.#isClosed) return Promise.reject(new OutputClosed());
    return new Promise((resolve, reject) => {
      this.#stream.write(text, (error) => {
        if (error === undefined || error === null) resolve();
        else {
          this.#noteFailure(error);
          reject(new OutputClosed());
        }
      });
    });
  }

  /** Why printed text was lost although the reader did not close the output. */
  get failure(): Error | undefined {
    return this.#failure;
  }

  #noteFailure(error: Error): void {
    // On a terminal, EIO means that it was closed.
    if ("code" in error && FULL.has(error.code) && !this.isScreen) this.#failure ??= error;
  }

  /** Prints without waiting. Text that cannot be printed is lost. */
  put(text: string): void {
    if (!this.#isClosed) this.#stream.write(text, (error) => error && this.#noteFailure(error));
  }

  /** Calls `listener` once when the output is closed. */
  onClosed(listener: () => void): void {
    this.#whenClosed = listener;
    if (this.#isClosed) listener();
  }
}
