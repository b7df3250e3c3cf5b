import type { HandlerContext } from "@connectrpc/connect";
import type { Refusal } from "../../domain/errors.ts";
import type { Caller } from "../../domain/principal.ts";
import type { CallLimiter } from "../callers/call-limits.ts";
import type { MethodAccess } from "./method-access.ts";

/** What the admission of all methods shares. */
export interface AdmissionRules {
  /** Undefined: no limits. */
  readonly limiter: CallLimiter | undefined;
  /** The key under which the limits count a call without a principal, such as its address. */
  limitKey(context: HandlerContext): string;
}

/** Admits the calls of one method: is the replica draining, is the rate limit exceeded, may the caller call the method? */
export class CallAdmission {
  readonly #access: MethodAccess;
  readonly #rules: AdmissionRules;
  readonly #refusal: (() => Refusal | undefined) | undefined;
  /** The limits count services that are served during a drain apart: a flood of calls must not make health checks fail. */
  readonly #prefix: "" | "standard ";

  /** `refusal`: the current reason to reject all calls, if any. Undefined: the method is served during a drain. */
  constructor(access: MethodAccess, rules: AdmissionRules, refusal: (() => Refusal | undefined) | undefined) {
    this.#access = access;
    this.#rules = rules;
    this.#refusal = refusal;
    this.#prefix = refusal === undefined ? "standard " : "";
  }

  /**
   * Authenticates a caller, counts the call, and checks that the caller may call the method. A call whose authentication takes
   * time or fails counts for its address, every other call for its principal.
   *
   * @throws Refusal, or rejects with one
   */
  admit(context: HandlerContext): Caller | Promise<Caller> {
    const refusal = this.#refusal?.();
    if (refusal !== undefined) throw refusal;
    let caller: Caller | Promise<Caller>;
    try {
      caller = this.#access.authenticate(context);
    } catch (thrown) {
      this.#count(this.#rules.limitKey(context));
      throw thrown;
    }
    if (!(caller instanceof Promise)) return this.#authorize(caller, context);
    // If the next line throws, nothing else handles its rejection.
    caller.catch(() => undefined);
    this.#count(this.#rules.limitKey(context));
    return caller.then((known) => this.#authorize(known, context));
  }

  /** The key under which the limits count a caller: its principal, for all of its credentials and addresses. */
  callerKey({ principal }: Caller, context: HandlerContext): string {
    return principal.role === "anyone" ? this.#rules.limitKey(context) : `${principal.role} ${principal.name}`;
  }

  /** Counts an open stream until the function that it returns is called. @throws Refusal `LIMIT_EXCEEDED` */
  holdStream(caller: Caller, context: HandlerContext): (() => void) | undefined {
    return this.#rules.limiter?.holdStream(this.#prefix + this.callerKey(caller, context));
  }

  /** The same for a watch, with the values of its filter. @throws Refusal `LIMIT_EXCEEDED` */
  holdWatch(request: object, caller: Caller, context: HandlerContext): (() => void) | undefined {
    const releaseStream = this.holdStream(caller, context);
    const { limiter } = this.#rules;
    const count = valuesIn(request);
    if (limiter === undefined || releaseStream === undefined || count === 0) return releaseStream;
    try {
      const releaseValues = limiter.holdValues(this.#prefix + this.callerKey(caller, context), count);
      return () => {
        releaseStream();
        releaseValues();
      };
    } catch (thrown) {
      releaseStream();
      throw thrown;
    }
  }

  #authorize(caller: Caller, context: HandlerContext): Caller {
    this.#count(this.callerKey(caller, context));
    this.#access.authorize(caller, context);
    return caller;
  }

  #count(key: string): void {
    const refusal = this.#rules.limiter?.begin(this.#prefix + key);
    if (refusal !== undefined) throw refusal;
  }
}

/** Items of lists in a request and in the messages in it. In a watch, these are the values of its filter. */
function valuesIn(message: object): number {
  let count = 0;
  for (const value of Object.values(message)) {
    if (Array.isArray(value)) count += value.length;
    else if (typeof value === "object" && value !== null) count += valuesIn(value);
  }
  return count;
}
