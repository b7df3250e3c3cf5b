import { Model, type RelationMappings, snakeCaseMappers } from "objection";
import type { Micros } from "../../../common/contract/time.ts";
import type { User as UserValue } from "../../domain/agent.ts";
import { Agent } from "./agent.ts";

/** A user. */
export class User extends Model {
  static override readonly tableName = "users";
  static override readonly columnNameMappers = snakeCaseMappers();

  declare readonly id: bigint;
  declare readonly username: string;
  declare readonly email: string | null;
  declare readonly displayName: string;
  declare readonly createdAt: Micros;

  /** Only if the query joined the relation and selected this column. */
  declare readonly agentId?: string | null;
  declare readonly agent?: Agent | null;

  static override readonly relationMappings = (): RelationMappings => ({
    agent: {
      relation: Model.HasOneRelation,
      modelClass: Agent,
      join: { from: "users.id", to: "agent_states.user_id" },
    },
  });

  toDomain(): UserValue {
    return {
      id: this.id,
      username: this.username,
      email: this.email,
      displayName: this.displayName,
      agentId: this.agentId ?? this.agent?.agentId ?? null,
      createdAt: this.createdAt,
    };
  }
}
