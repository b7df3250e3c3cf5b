import { type ColumnNameMappers, Model, type Pojo, type RelationMappings, snakeCaseMappers } from "objection";
import type { Micros } from "../../../common/contract/time.ts";
import type { Transition as TransitionValue } from "../../domain/agent.ts";
import { causeOf, exhaustionOf, statusOf } from "../agent-row.ts";
import { namedWake } from "../wake-row.ts";
import { Agent } from "./agent.ts";

const snakeCase = snakeCaseMappers();

/** The column `agent` is the number of the agent's row; the property `agent` is the relation. */
const columnNameMappers: ColumnNameMappers = {
  parse({ agent, ...columns }: Pojo) {
    return { ...(agent === undefined ? {} : { agentRow: agent }), ...snakeCase.parse(columns) };
  },
  format({ agentRow, ...properties }: Pojo) {
    return { ...(agentRow === undefined ? {} : { agent: agentRow }), ...snakeCase.format(properties) };
  },
};

/** A row of the log. Only the committer writes rows, and they never change. */
export class AgentTransition extends Model {
  static override readonly tableName = "agent_transitions";
  static override readonly idColumn = "revision";
  static override readonly columnNameMappers = columnNameMappers;

  declare readonly revision: bigint;
  declare readonly agentRow: bigint;
  declare readonly agentId: string;
  declare readonly userId: bigint;
  declare readonly fromStatus: string | null;
  declare readonly toStatus: string | null;
  declare readonly fromClawIdentifier: string | null;
  declare readonly toClawIdentifier: string | null;
  declare readonly cause: string;
  declare readonly actor: string;
  declare readonly occurredAt: Micros;
  declare readonly requestId: string | null;
  declare readonly incidentId: string | null;
  declare readonly previousRevision: bigint | null;
  declare readonly exhaustedAt: Micros | null;
  declare readonly recoveryAt: Micros | null;
  declare readonly exhaustReason: string | null;
  declare readonly agentCreatedAt: Micros;
  declare readonly statusChangedAt: Micros;
  declare readonly wakeId: string | null;
  declare readonly wakeState: string | null;
  declare readonly openWakeId: string | null;
  declare readonly openWakeState: string | null;

  /** Null if the agent was deleted. */
  declare readonly agent?: Agent | null;

  static override readonly relationMappings = (): RelationMappings => ({
    agent: {
      relation: Model.BelongsToOneRelation,
      modelClass: Agent,
      join: { from: "agent_transitions.agent", to: "agent_states.id" },
    },
  });

  toDomain(): TransitionValue {
    return {
      revision: this.revision,
      id: this.agentRow,
      agentId: this.agentId,
      userId: this.userId,
      fromStatus: this.fromStatus === null ? null : statusOf(this.fromStatus),
      toStatus: this.toStatus === null ? null : statusOf(this.toStatus),
      fromClaw: this.fromClawIdentifier,
      toClaw: this.toClawIdentifier,
      cause: causeOf(this.cause),
      actor: this.actor,
      occurredAt: this.occurredAt,
      requestId: this.requestId,
      incidentId: this.incidentId,
      previousRevision: this.previousRevision,
      exhaustion: exhaustionOf(this.exhaustReason, this.exhaustedAt, this.recoveryAt),
      createdAt: this.agentCreatedAt,
      statusChangedAt: this.statusChangedAt,
      wake: namedWake(this.wakeId, this.wakeState),
      openWake: namedWake(this.openWakeId, this.openWakeState),
    };
  }
}
