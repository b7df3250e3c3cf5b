-- The current state of agents by id or by agent_id, and the database's clock. Changes are judged by these.
SELECT s.*, k.open_wake, k.queued_wakes, k.undone_claim, clock_timestamp() AS read_at
FROM agent_states s LEFT JOIN wakes_of_agents k ON k.agent = s.id
WHERE s.id = ANY ($1::bigint[]) OR s.agent_id = ANY ($2::text[])
