-- The current state of agents by id or by agent_id, and the database's clock. Changes are judged by these.
SELECT s.*, (SELECT a.lapses_to FROM agents a WHERE a.id = s.id) AS lapses_to, clock_timestamp() AS read_at
FROM agent_states s
WHERE s.id = ANY ($1::bigint[]) OR s.agent_id = ANY ($2::text[])
