-- The current state of agents by agent_id.
SELECT s.* FROM agent_states s WHERE s.agent_id = ANY ($1::text[])
