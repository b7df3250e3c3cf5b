-- The current state of agents by id or by agent_id, and the database's clock. Changes are judged by these.
SELECT s.*, clock_timestamp() AS read_at, (SELECT a.lapses_to FROM agents a WHERE a.id = s.id) AS lapses_to,
  (SELECT o.open_wake FROM open_wakes o WHERE o.agent = s.id) AS open_wake,
  (SELECT count(*)::integer FROM wakes w WHERE w.agent = s.id AND w.state = 'queued') AS queued_wakes,
  (SELECT u.undone_claim FROM undone_claims_in_force u WHERE u.agent = s.id) AS undone_claim
FROM agent_states s
WHERE s.id = ANY ($1::bigint[]) OR s.agent_id = ANY ($2::text[])
