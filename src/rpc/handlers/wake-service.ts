import type { HandlerContext, ServiceImpl } from "@connectrpc/connect";
import { ifUnavailableName, statusName, wakeStateName } from "../../../common/contract/enum-values.ts";
import { microsOf } from "../../../common/contract/timestamps.ts";
import {
  type PauseWakesRequest,
  type ResumeWakesRequest,
  type WakeAgentRequest,
  WakeService,
} from "../../../gen/harborforge/agents/v1/wake_service_pb.ts";
import { Refusal } from "../../domain/errors.ts";
import { actorOf, requesterOf } from "../../domain/principal.ts";
import { durationMs, pageSizeOf } from "../../domain/validation.ts";
import {
  DEFAULT_ANSWER_WITHIN_MS,
  DEFAULT_MAX_OFFERS,
  type NewWake,
  type PauseTarget,
  type Wake,
} from "../../domain/wake.ts";
import type { WakeCaller } from "../../domain/wake-directory.ts";
import { principalKey } from "../callers/call-values.ts";
import { agentMessage } from "../convert/agent.ts";
import { readPageToken, writePageToken } from "../convert/page-token.ts";
import { pauseMessage } from "../convert/pause.ts";
import { required } from "../convert/request.ts";
import { wakeMessage } from "../convert/wake.ts";
import type { Backend } from "./backend.ts";
import { callOf, mutationOf } from "./mutation.ts";

const METHODS = WakeService.method;

/** Implements `WakeService`. Refusals are thrown unchanged; the pipeline turns them into errors. */
export function createWakeService({
  wakes,
  wakeFollowing,
}: Pick<Backend, "wakes" | "wakeFollowing">): ServiceImpl<typeof WakeService> {
  return {
    async wakeAgent(request, context) {
      const caller = callerOf(context);
      const { wake, agent } = await wakes.wake(newWakeOf(request), request.expectedRevision, caller);
      return {
        wake: messageFor(wake, context),
        ...(agent === undefined ? {} : { agent: agentMessage(agent) }),
      };
    },

    async cancelWake({ wakeId, note }, context) {
      return { wake: messageFor(await wakes.cancel(wakeId, note, callerOf(context)), context) };
    },

    async getWake({ wakeId }, context) {
      return { wake: messageFor(await wakes.get(wakeId), context) };
    },

    async listWakes(request, context) {
      const position = readPageToken(METHODS.listWakes, request, request.pageToken);
      const page = await wakes.list({
        agentId: request.agentId,
        states: request.states.map((state) => known(wakeStateName(state), "states")),
        newestFirst: request.newestFirst,
        after: position?.after,
        limit: pageSizeOf(request.pageSize),
      });
      const revision = position?.asOf ?? page.revision;
      const next =
        page.next === undefined ? "" : writePageToken(METHODS.listWakes, request, { after: page.next, asOf: revision });
      return { wakes: page.rows.map((wake) => messageFor(wake, context)), nextPageToken: next, revision };
    },

    async *followWake({ wakeId }, context) {
      const { signal } = context;
      const caller = callerOf(context);
      for await (const wake of wakeFollowing.follow(wakeId, signal)) {
        if (!isOwn(wake, caller)) throw denied(wakeId);
        yield { wake: messageFor(wake, context) };
      }
      signal.throwIfAborted();
    },

    async pauseWakes(request, context) {
      const mutation = mutationOf(context, METHODS.pauseWakes, request);
      const until = request.until === undefined ? undefined : microsOf(request.until);
      return { pause: pauseMessage(await wakes.pause(pauseTargetOf(request), until, request.note, mutation)) };
    },

    async resumeWakes(request, context) {
      await wakes.resume(pauseTargetOf(request), mutationOf(context, METHODS.resumeWakes, request));
      return {};
    },

    async listPauses(request) {
      const position = readPageToken(METHODS.listPauses, request, request.pageToken);
      const page = await wakes.pauses({ after: position?.after, limit: pageSizeOf(request.pageSize) });
      const next =
        page.next === undefined ? "" : writePageToken(METHODS.listPauses, request, { after: page.next, asOf: 0n });
      return { pauses: page.rows.map(pauseMessage), nextPageToken: next };
    },
  };
}

function callerOf(context: HandlerContext): WakeCaller {
  const principal = context.values.get(principalKey);
  return {
    principal: requesterOf(principal),
    actor: actorOf(principal),
    mayAll: principal.role === "admin" || principal.role === "anyone",
    call: callOf(context),
  };
}

function isOwn(wake: Wake, caller: WakeCaller): boolean {
  return caller.mayAll || wake.principal === caller.principal;
}

/** The payload is for the agent, and for those who may act on the wake. */
function messageFor(wake: Wake, context: HandlerContext) {
  return wakeMessage(wake, isOwn(wake, callerOf(context)));
}

function denied(wakeId: string): Refusal {
  return new Refusal("PERMISSION_DENIED", `'${wakeId}' belongs to another principal.`, { metadata: { wakeId } });
}

/** Unset fields have their defaults, so that a repetition with or without them is the same request. */
function newWakeOf(request: WakeAgentRequest): NewWake {
  const { wakeId, target, payload } = request;
  if (target.case !== "agentId") throw new TypeError("target is missing, but no rule rejected the request");
  const claim = statusName(request.claim);
  return {
    wakeId,
    agentId: target.value,
    claim: claim === "on_call" ? claim : "busy",
    ifUnavailable: ifUnavailableName(request.ifUnavailable) === "queue" ? "queue" : "refuse",
    answerWithinMs: request.answerWithin === undefined ? DEFAULT_ANSWER_WITHIN_MS : durationMs(request.answerWithin),
    maxOffers: request.maxOffers === 0 ? DEFAULT_MAX_OFFERS : request.maxOffers,
    expiresAt: microsOf(required(request.expiresAt, "expires_at")),
    payload,
  };
}

function pauseTargetOf({ target }: PauseWakesRequest | ResumeWakesRequest): PauseTarget {
  switch (target.case) {
    case "agentId":
      return { agentId: target.value };
    case "clawIdentifier":
      return { clawIdentifier: target.value };
    case undefined:
      throw new TypeError("target is missing, but no rule rejected the request");
  }
}

function known<Word extends string>(word: Word | "unknown" | undefined, field: string): Word {
  if (word === undefined || word === "unknown") throw new TypeError(`${field} is unknown, but no rule rejected it`);
  return word;
}
