import type { DescMethod } from "@bufbuild/protobuf";
import type { HandlerContext } from "@connectrpc/connect";
import { requestHeaderOf } from "@harborforge/connect-grpc-js";
import {
  ANYONE,
  type Authenticate,
  type Caller,
  type Principal,
  type Role,
  roleDenied,
} from "../../domain/principal.ts";
import { peerKey, principalKey } from "../callers/call-values.ts";
import { methodName } from "./call-record.ts";

/** The callers that may call a method: some roles, every authenticated caller, or everyone without authentication. */
export interface AccessRule {
  readonly callers: ReadonlySet<Role> | "authenticated" | "public";
  /** Whether successful calls are written to the audit log. */
  readonly audited?: boolean;
}

/** How the pipeline authenticates and authorizes calls. */
export interface Access {
  readonly authenticate: Authenticate;
  /** Undefined: the method is in no table. Access is denied by default. */
  rule(method: DescMethod): AccessRule | undefined;
  /** Called after each successful call of an audited method. */
  audit(method: DescMethod, principal: Principal, request: object, response: object): void;
}

const UNAUTHENTICATED: Caller = { principal: ANYONE };

/** Authenticates and authorizes the calls of one method. */
export class MethodAccess {
  readonly #method: DescMethod;
  readonly #access: Access | undefined;
  readonly #rule: AccessRule | undefined;

  /** `access` undefined: every caller may call every method. */
  constructor(method: DescMethod, access: Access | undefined) {
    this.#method = method;
    this.#access = access;
    this.#rule = access?.rule(method);
  }

  /** @throws Refusal, or rejects with one, as `Authenticate` does */
  authenticate(context: HandlerContext): Caller | Promise<Caller> {
    if (this.#access === undefined || this.#rule?.callers === "public") return UNAUTHENTICATED;
    return this.#access.authenticate({
      authorization: requestHeaderOf(context, "authorization"),
      peer: context.values.get(peerKey).identity,
    });
  }

  /** Checks the role of the caller, and makes its principal known to the handler. @throws Refusal `PERMISSION_DENIED` */
  authorize({ principal }: Caller, context: HandlerContext): void {
    context.values.set(principalKey, principal);
    if (this.#access === undefined || principal.role === "anyone") return;
    const callers = this.#rule?.callers;
    if (callers === "authenticated" || callers === "public") return;
    if (callers === undefined || !callers.has(principal.role))
      throw roleDenied(principal.role, methodName(this.#method));
  }

  /** Whether successful calls are written to the audit log. */
  get audits(): boolean {
    return this.#rule?.audited === true;
  }

  /** Writes a successful call to the audit log, if the method is audited. */
  succeeded(context: HandlerContext, request: object, response: object): void {
    if (this.audits) this.#access?.audit(this.#method, context.values.get(principalKey), request, response);
  }
}
