-- In one snapshot: the revocations after $1, and the tokens $2. `lineage` names the history that the revocation numbers
-- belong to.
SELECT
  c.revocation AS newest,
  history_name() AS lineage,
  clock_timestamp() AS read_at,
  r.revoked,
  r.reached,
  t.key_id, t.secret_hash, t.principal, t.role, t.agent_ids, t.claw_identifier, t.expires_at, t.revoked_at
FROM api_token_counter c
CROSS JOIN LATERAL (
  SELECT coalesce(array_agg(n.key_id), '{}') AS revoked, max(n.revocation) AS reached
  FROM (SELECT key_id, revocation FROM api_tokens WHERE revocation > $1 ORDER BY revocation LIMIT 1000) n
) r
LEFT JOIN api_tokens t ON t.key_id = ANY ($2::text[])
