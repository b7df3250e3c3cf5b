-- One page of exhaustions that end before a moment, in order of their ends, after a position.
SELECT id, agent_id, recovery_at, clock_timestamp() AS read_at
FROM agents
WHERE recovery_at IS NOT NULL AND recovery_at < to_timestamp($1::bigint) AND (recovery_at, id) > ($2::timestamptz, $3::bigint)
ORDER BY recovery_at, id
LIMIT 5000
