-- The current state of agents by agent_id.
SELECT s.*, k.open_wake, k.pause FROM agent_states s LEFT JOIN wakes_of_agents k ON k.agent = s.id WHERE s.agent_id = ANY ($1::text[])
