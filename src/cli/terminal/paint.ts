import { styleText } from "node:util";
import type { AgentStatus } from "../../../common/contract/enum-names.ts";
import type { OutputStream } from "../host.ts";

export type Style = AgentStatus | "heading" | "dim" | "alarm" | "good";

const FORMATS = {
  idle: "green",
  on_call: "cyan",
  busy: "yellow",
  exhausted: "magenta",
  offline: "red",
  heading: "bold",
  dim: "dim",
  alarm: ["bold", "red"],
  good: "green",
} as const satisfies Readonly<Record<Style, unknown>>;

/** Colours a text; returns it unchanged if colours are off. */
export type Paint = (style: Style, text: string) => string;

export const plainPaint: Paint = (_, text) => text;
export const colourPaint: Paint = (style, text) => styleText([FORMATS[style]].flat(), text, { validateStream: false });

/** Colours if the stream is a terminal that supports them, and `NO_COLOR` is not set. */
export function paintFor(stream: OutputStream, env: Readonly<Record<string, string | undefined>>): Paint {
  const { NO_COLOR, TERM } = env;
  const wanted = NO_COLOR === undefined || NO_COLOR === "";
  return stream.isTTY === true && wanted && TERM !== "dumb" ? colourPaint : plainPaint;
}
