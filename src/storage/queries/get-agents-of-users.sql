-- The current state of agents by their users.
SELECT s.*, k.open_wake, k.pause FROM agent_states s LEFT JOIN wakes_of_agents k ON k.agent = s.id WHERE s.user_id = ANY ($1::bigint[])
