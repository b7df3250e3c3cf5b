import { Model, type RelationMappings, snakeCaseMappers } from "objection";
import type { Micros } from "../../../common/contract/time.ts";
import type { Agent as AgentValue } from "../../domain/agent.ts";
import { exhaustionOf, statusOf } from "../agent-row.ts";
import { type OpenWakeJson, type PauseJson, wakesFromRow } from "../wake-row.ts";
import { AgentTransition } from "./agent-transition.ts";
import { User } from "./user.ts";

/**
 * An agent with its liveness, from the view `agent_states`. Read-only: only the committer changes agents, because each
 * change needs a revision.
 *
 * Models declare their fields without defining them. A defined field would be an own property with the value undefined,
 * which Objection would treat as a column.
 */
export class Agent extends Model {
  static override readonly tableName = "agent_states";
  static override readonly columnNameMappers = snakeCaseMappers();

  declare readonly id: bigint;
  declare readonly userId: bigint;
  declare readonly agentId: string;
  declare readonly clawIdentifier: string;
  declare readonly status: string;
  declare readonly exhaustedAt: Micros | null;
  declare readonly recoveryAt: Micros | null;
  declare readonly exhaustReason: string | null;
  declare readonly createdAt: Micros;
  declare readonly statusChangedAt: Micros;
  declare readonly revision: bigint;
  declare readonly backoffSteps: number;
  declare readonly backoffAt: Micros | null;
  declare readonly holdRevision: bigint | null;
  declare readonly holdUntil: Micros | null;
  declare readonly epoch: bigint;
  declare readonly held: boolean;
  declare readonly lastHeartbeat: Micros | null;
  declare readonly leaseExpiresAt: Micros | null;
  declare readonly replicaId: number | null;
  declare readonly suspectSince: Micros | null;
  /** In queries that select them. */
  declare readonly openWake?: OpenWakeJson | null;
  declare readonly pause?: PauseJson | null;

  declare readonly user?: User;
  declare readonly transitions?: AgentTransition[];

  static override readonly relationMappings = (): RelationMappings => ({
    user: {
      relation: Model.BelongsToOneRelation,
      modelClass: User,
      join: { from: "agent_states.user_id", to: "users.id" },
    },
    transitions: {
      relation: Model.HasManyRelation,
      modelClass: AgentTransition,
      join: { from: "agent_states.id", to: "agent_transitions.agent" },
    },
  });

  toDomain(): AgentValue {
    const { holdRevision, holdUntil } = this;
    return {
      id: this.id,
      userId: this.userId,
      agentId: this.agentId,
      clawIdentifier: this.clawIdentifier,
      status: statusOf(this.status),
      exhaustion: exhaustionOf(this.exhaustReason, this.exhaustedAt, this.recoveryAt),
      createdAt: this.createdAt,
      statusChangedAt: this.statusChangedAt,
      revision: this.revision,
      backoff: { steps: this.backoffSteps, lastAt: this.backoffAt },
      hold: holdRevision === null || holdUntil === null ? null : { revision: holdRevision, until: holdUntil },
      lapsesTo: null,
      epoch: this.epoch,
      held: this.held,
      lastHeartbeat: this.lastHeartbeat,
      leaseExpiresAt: this.leaseExpiresAt,
      replicaId: this.replicaId,
      suspectSince: this.suspectSince,
      wakes: wakesFromRow({ open_wake: this.openWake, pause: this.pause }),
    };
  }
}
