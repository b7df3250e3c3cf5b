-- How many agents beat: what the pace is set by.
SELECT count(*) AS live, clock_timestamp() AS read_at FROM agent_liveness WHERE lease_expires_at IS NOT NULL
