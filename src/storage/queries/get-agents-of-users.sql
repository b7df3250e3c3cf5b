-- The current state of agents by their users.
SELECT s.* FROM agent_states s WHERE s.user_id = ANY ($1::bigint[])
