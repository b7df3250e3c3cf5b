-- Agents by the users that they belong to, as they are now.
SELECT s.* FROM agent_states s WHERE s.user_id = ANY ($1::bigint[])
