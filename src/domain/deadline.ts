/**
 * The deadlines of an agent that the database stores (view `agent_deadlines`). `claim`: the end of the hold of a service's
 * claim that the agent has not confirmed.
 */
export type DeadlineKind = "claim";
