import { readFileSync } from "node:fs";
import type { Refusal, Signal } from "../src/activity/signal.ts";
import { RUN_HOOKS, signalOfEvent, signalOfHook } from "../src/gateway/run-signals.ts";

/** What OpenClaw 2026.9.6 emitted, in its order. `t`: when, in milliseconds since 1970. */
export type GatewayRecord =
  | { readonly t: number; readonly hook?: undefined; readonly event: object }
  | { readonly t: number; readonly hook: string; readonly event: object; readonly context: object };

const all: Readonly<Record<string, readonly GatewayRecord[]>> = JSON.parse(
  readFileSync(new URL("./cases/gateway-records.json", import.meta.url), "utf8"),
);

/** The records of a case: events and hooks of a gateway with a scripted provider. */
export function recordsOf(name: string): readonly GatewayRecord[] {
  const records = all[name];
  if (records === undefined) throw new Error(`no such case: ${name}. There are: ${Object.keys(all).join("; ")}`);
  return records;
}

/** The signals of a case with their instants. @param withHooks false: the gateway does not let the plugin read conversations */
export function signalsOf(name: string, withHooks = true): readonly (readonly [signal: Signal, now: number])[] {
  return recordsOf(name).flatMap((record) => {
    const signal = withHooks || record.hook === undefined ? read(record) : undefined;
    return signal === undefined ? [] : [[signal, record.t] as const];
  });
}

function read(record: GatewayRecord): Signal | undefined {
  if (record.hook === undefined) return signalOfEvent(record.event, record.t);
  const hook = RUN_HOOKS.find((name) => name === record.hook);
  return hook === undefined ? undefined : signalOfHook(hook, record.event, record.context, record.t);
}

export const NO_ACCOUNTS = (): Refusal | undefined => undefined;
