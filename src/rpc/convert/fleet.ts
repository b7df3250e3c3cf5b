import type { MessageInitShape } from "@bufbuild/protobuf";
import { AGENT_STATUSES } from "../../../common/contract/enum-names.ts";
import { statusValue } from "../../../common/contract/enum-values.ts";
import type { ClawFleetSchema, StatusCountSchema } from "../../../gen/harborforge/agents/v1/agent_service_pb.ts";
import type { StatusTally } from "../../domain/directories.ts";

/** In the order of the contract, without statuses that no agent has. Statuses of a newer version are UNSPECIFIED. */
export function statusCounts({ statuses, suspects }: StatusTally): MessageInitShape<typeof StatusCountSchema>[] {
  return [...AGENT_STATUSES, "unknown" as const].flatMap((status) => {
    const count = statuses.get(status) ?? 0n;
    return count === 0n ? [] : [{ status: statusValue(status), count, suspect: suspects?.get(status) ?? 0n }];
  });
}

/** In the order of their names. */
export function clawFleets(claws: ReadonlyMap<string, StatusTally>): MessageInitShape<typeof ClawFleetSchema>[] {
  return [...claws]
    .sort(([one], [other]) => (one < other ? -1 : 1))
    .map(([clawIdentifier, tally]) => ({ clawIdentifier, statuses: statusCounts(tally) }));
}
