import type { Knex } from "knex";
import type { Agent, User as UserValue } from "../domain/agent.ts";
import type { Mutation, NewUser, PageQuery, UserChange, UserDirectory, UserKey } from "../domain/directories.ts";
import { KEEP_LEASE } from "./agent-change.ts";
import type { Committer } from "./committer.ts";
import type { Database } from "./database.ts";
import { violatedConstraint } from "./failures.ts";
import { User } from "./models/user.ts";
import { pageOf } from "./page.ts";
import { agentIdTaken, conflictRefusal, userKeepsChanging, userNotFound, type Wanted } from "./refusals.ts";
import { claimRequest, firstAnswer, keepAnswer } from "./request-answers.ts";
import { boundsOf, retryChange, retryRead } from "./retries.ts";

export interface DirectoryOptions {
  readonly database: Database;
  readonly committer: Committer;
  /** The lease of a new or moved agent until its first heartbeat, in milliseconds. */
  readonly firstLeaseMs: number;
  /** Called with an agent whose lease this replica watches from now on: it was created or moved here. */
  readonly onLease?: (agent: Agent) => void;
}

/** Attempts to delete a user whose agent another caller creates or deletes at the same time. */
const MAX_DELETE_ATTEMPTS = 5;

/** The directory of users in the database. */
export function createUserDirectory(options: DirectoryOptions): UserDirectory {
  const { database, committer, firstLeaseMs, onLease } = options;
  const { knex } = database;

  async function get(key: UserKey): Promise<UserValue> {
    const user = await retryRead(() => findUser(knex, key));
    if (user === undefined) throw userNotFound(key);
    return user;
  }

  function createWithAgent(user: NewUser, agent: NonNullable<NewUser["agent"]>, { actor, request, call }: Mutation) {
    const { agentId, clawIdentifier } = agent;
    const { username, email, displayName } = user;
    return committer.submit({
      agentId,
      actor,
      request,
      ...boundsOf(call),
      repeat: (answer) => ({ user: storedUser(answer.user), agent: answer.agent }),
      judge(existing) {
        if (existing !== undefined) throw agentIdTaken(agentId);
        return {
          kind: "write",
          write: { kind: "create", agentId, clawIdentifier, firstLeaseMs, user: { username, email, displayName } },
          result(committed) {
            onLease?.(committed.agent);
            return { user: storedUser(committed.user), agent: committed.agent };
          },
        };
      },
    });
  }

  /**
   * Changes a user without its agent. The result of `work` is stored as the response for repetitions of the request.
   *
   * @param wanted the values that a constraint may reject; undefined: the caller handles violations
   */
  async function change<Answer extends UserValue | undefined>(
    { request, call }: Mutation,
    wanted: Wanted | undefined,
    work: (transaction: Knex.Transaction) => Promise<Answer>,
  ): Promise<UserValue | undefined> {
    try {
      return await retryChange(database, call, request !== undefined, async (transaction) => {
        if (request === undefined) return await work(transaction);
        if (!(await claimRequest(transaction, request))) return (await firstAnswer(transaction, request))?.user;
        const answer = await work(transaction);
        if (answer !== undefined) await keepAnswer(transaction, request, answer);
        return answer;
      });
    } catch (error) {
      throw (wanted && conflictRefusal(violatedConstraint(error) ?? "", wanted)) ?? error;
    }
  }

  async function deleteOnce(id: bigint, mutation: Mutation): Promise<"deleted" | "again"> {
    const { actor, request, call } = mutation;
    const user = await retryRead(() => findUser(knex, { id }));
    // Also if the user does not exist: the request may repeat the one that deleted it.
    if (user === undefined || user.agentId === null) return await deleteAlone(id, mutation);
    return await committer.submit<"deleted" | "again">({
      agentId: user.agentId,
      actor,
      request,
      ...boundsOf(call),
      repeat: () => "deleted",
      judge(agent) {
        if (agent === undefined || agent.userId !== id) return { kind: "done", result: "again" };
        const write = { kind: "delete", agent, cause: "deleted", lease: KEEP_LEASE, deleteUser: true } as const;
        return { kind: "write", write, result: () => "deleted" };
      },
    });
  }

  async function deleteAlone(id: bigint, mutation: Mutation): Promise<"deleted" | "again"> {
    try {
      await change(mutation, undefined, async (transaction) => {
        const deleted = await User.query(transaction).deleteById(id);
        if (deleted === 0) throw userNotFound({ id });
        return undefined;
      });
      return "deleted";
    } catch (error) {
      // The user got an agent in between. Delete that first, as a transition.
      if (violatedConstraint(error) === "agents_user_id_fkey") return "again";
      throw error;
    }
  }

  return {
    async create(user, mutation) {
      if (user.agent !== undefined) return await createWithAgent(user, user.agent, mutation);
      const { username, email, displayName } = user;
      const answer = await change(mutation, user, async (transaction) => {
        const created = await User.query(transaction).insert({ username, email, displayName }).returning("*");
        return created.toDomain();
      });
      return { user: storedUser(answer), agent: undefined };
    },

    get,

    async list(page: PageQuery) {
      const users = await retryRead(async () => {
        const query = usersWithAgentId(knex)
          .orderBy("users.id")
          .limit(page.limit + 1);
        if (page.after !== undefined) query.where("users.id", ">", page.after.toString());
        return await query;
      });
      return pageOf(
        users.map((user) => user.toDomain()),
        page.limit,
        (user) => user.id,
      );
    },

    async update(id: bigint, { email, displayName }: UserChange, mutation) {
      const patch = {
        ...(email === undefined ? {} : { email }),
        ...(displayName === undefined ? {} : { displayName }),
      };
      const answer = await change(mutation, { email }, async (transaction) => {
        if (Object.keys(patch).length > 0) await User.query(transaction).patch(patch).where({ id });
        const user = await findUser(transaction, { id });
        if (user === undefined) throw userNotFound({ id });
        return user;
      });
      return storedUser(answer);
    },

    async delete(id, mutation) {
      for (let attempt = 1; ; attempt++) {
        if ((await deleteOnce(id, mutation)) === "deleted") return;
        if (attempt === MAX_DELETE_ATTEMPTS) throw userKeepsChanging(id);
      }
    },
  };
}

function usersWithAgentId(knex: Knex) {
  return User.query(knex).leftJoinRelated("agent").select("users.*", "agent.agent_id");
}

async function findUser(knex: Knex, key: UserKey): Promise<UserValue | undefined> {
  const query = usersWithAgentId(knex);
  if ("id" in key) query.where({ "users.id": key.id });
  else if ("username" in key) query.where("users.username", key.username);
  else query.where("agent.agent_id", key.agentId);
  const user = await query.first();
  return user?.toDomain();
}

/** The user of a response: creations and updates always have one, also stored ones. */
function storedUser(user: UserValue | undefined): UserValue {
  if (user === undefined) throw new TypeError("the stored response has no user");
  return user;
}
