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

/** Who may call a method: the named roles, everybody who is known, or everybody, without even being asked who. */
export interface AccessRule {
  readonly who: ReadonlySet<Role> | "known" | "everybody";
  /** Whether each call that went well is a line of the audit log. */
  readonly audited?: boolean;
}

/** How the pipeline lets callers in. */
export interface Access {
  readonly authenticate: Authenticate;
  /** Undefined: nobody thought of the method, and nobody may call it. */
  rule(method: DescMethod): AccessRule | undefined;
  /** A call of an audited method went well. */
  audit(method: DescMethod, principal: Principal, request: object, response: object): void;
}

const EVERYBODY: Caller = { principal: ANYONE };

/** What a method asks of its callers, made ready once for all calls of it. */
export class Gatekeeper {
  readonly #method: DescMethod;
  readonly #access: Access | undefined;
  readonly #rule: AccessRule | undefined;

  /** `access` undefined: everybody may do everything. */
  constructor(method: DescMethod, access: Access | undefined) {
    this.#method = method;
    this.#access = access;
    this.#rule = access?.rule(method);
  }

  /** Who calls. @throws Refusal, or rejects with one, as `Authenticate` does */
  identify(context: HandlerContext): Caller | Promise<Caller> {
    if (this.#access === undefined || this.#rule?.who === "everybody") return EVERYBODY;
    return this.#access.authenticate({
      authorization: requestHeaderOf(context, "authorization"),
      peer: context.values.get(peerKey).identity,
    });
  }

  /** Lets a caller in: from here on the context says who it is. @throws Refusal `PERMISSION_DENIED` */
  admit({ principal }: Caller, context: HandlerContext): void {
    context.values.set(principalKey, principal);
    if (this.#access === undefined || principal.role === "anyone") return;
    const who = this.#rule?.who;
    if (who === "known" || who === "everybody") return;
    if (who === undefined || !who.has(principal.role)) throw roleDenied(principal.role, methodName(this.#method));
  }

  /** Whether calls that went well are noted. */
  get audits(): boolean {
    return this.#rule?.audited === true;
  }

  /** The call went well. */
  succeeded(context: HandlerContext, request: object, response: object): void {
    if (this.audits) this.#access?.audit(this.#method, context.values.get(principalKey), request, response);
  }
}
