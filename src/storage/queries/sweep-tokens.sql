-- Tokens that ended, by time or by somebody, before the retention. Rows that somebody else is sweeping are left to them.
DELETE FROM api_tokens
WHERE id IN (
  SELECT id FROM api_tokens
  WHERE coalesce(revoked_at, expires_at) <= clock_timestamp() - $2::double precision * interval '1 millisecond'
  ORDER BY id LIMIT $1::integer
  FOR UPDATE SKIP LOCKED
)
