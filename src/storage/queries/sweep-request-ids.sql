-- Deletes expired responses. Skips rows that another transaction is deleting or claiming.
DELETE FROM request_ids r
USING (
  SELECT request_id, principal FROM request_ids
  WHERE created_at <= clock_timestamp() - interval '24 hours'
  ORDER BY created_at LIMIT $1::integer
  FOR UPDATE SKIP LOCKED
) old
WHERE r.request_id = old.request_id AND r.principal = old.principal
