-- How many agents went offline since the brake engaged because their lease expired.
SELECT count(*) AS agents
FROM revision_counter c, agent_transitions t
WHERE t.cause = 'lease_expired' AND t.occurred_at >= $1::timestamptz AND t.revision > revision_before($1::timestamptz, c.oldest, c.revision)
