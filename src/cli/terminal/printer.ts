import type { Host, OutputStream } from "../host.ts";
import { type Paint, paintFor } from "./paint.ts";

/** Whoever read what is printed has gone (`| head`): there is nothing left to say, and nothing wrong. */
export class ReaderGone extends Error {
  override readonly name = "ReaderGone";
}

/** What a file system says that takes no more: then what was asked for is not all there. */
const FULL: ReadonlySet<unknown> = new Set(["ENOSPC", "EDQUOT", "EFBIG", "EIO"]);
const DEFAULT_SIZE = { columns: 80, rows: 24 };

/** One of the two outputs of a command. */
export class Printer {
  /** Whether it is a terminal that can move its cursor: pictures may be redrawn there. */
  readonly isScreen: boolean;
  readonly paint: Paint;
  readonly #stream: OutputStream;
  #gone = false;
  #failure: Error | undefined;
  #whenGone: () => void = () => undefined;

  constructor(stream: OutputStream, env: Host["env"]) {
    this.#stream = stream;
    this.isScreen = stream.isTTY === true && env.TERM !== "dumb";
    this.paint = paintFor(stream, env);
    stream.on("error", (error: Error) => {
      this.#gone = true;
      this.#noteFailure(error);
      this.#whenGone();
    });
  }

  /** The size of the screen as it is now; undefined where there is none. */
  get columns(): number | undefined {
    return this.isScreen ? this.#stream.columns || DEFAULT_SIZE.columns : undefined;
  }

  get rows(): number {
    return this.#stream.rows || DEFAULT_SIZE.rows;
  }

  /** Prints a text as it is. Resolves when there is room for more. @throws ReaderGone */
  print(text: string): Promise<void> {
    if (this.#gone) return Promise.reject(new ReaderGone());
    return new Promise((resolve, reject) => {
      this.#stream.write(text, (error) => {
        if (error === undefined || error === null) resolve();
        else {
          this.#noteFailure(error);
          reject(new ReaderGone());
        }
      });
    });
  }

  /** Why something that was printed is not where it should be, although nobody stopped reading. */
  get failure(): Error | undefined {
    return this.#failure;
  }

  #noteFailure(error: Error): void {
    // On a terminal an EIO says that it was closed.
    if ("code" in error && FULL.has(error.code) && !this.isScreen) this.#failure ??= error;
  }

  /** Prints where nobody can wait for it; what cannot be printed is lost. */
  put(text: string): void {
    if (!this.#gone) this.#stream.write(text, (error) => error && this.#noteFailure(error));
  }

  /** Is called once when the reader has gone. */
  onGone(listener: () => void): void {
    this.#whenGone = listener;
    if (this.#gone) listener();
  }
}
