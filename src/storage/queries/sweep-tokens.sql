-- Deletes tokens that expired or were revoked before the retention time. Skips rows that another transaction is
-- deleting.
DELETE FROM api_tokens
WHERE id IN (
  SELECT id FROM api_tokens
  WHERE coalesce(revoked_at, expires_at) <= clock_timestamp() - $2::double precision * interval '1 millisecond'
  ORDER BY id LIMIT $1::integer
  FOR UPDATE SKIP LOCKED
)
