-- Agents by agent_id, as they are now.
SELECT s.* FROM agent_states s WHERE s.agent_id = ANY ($1::text[])
