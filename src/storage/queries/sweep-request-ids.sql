-- Answers that no repetition asks for any more. Rows that somebody else is sweeping or taking anew are left to them.
DELETE FROM request_ids r
USING (
  SELECT request_id, principal FROM request_ids
  WHERE created_at <= clock_timestamp() - interval '24 hours'
  ORDER BY created_at LIMIT $1::integer
  FOR UPDATE SKIP LOCKED
) old
WHERE r.request_id = old.request_id AND r.principal = old.principal
