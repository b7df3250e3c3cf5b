-- Removes wakes that ended a while ago and have expired, some at a time.
DELETE FROM wakes WHERE id IN (
  SELECT id FROM wakes
  WHERE ended_at < clock_timestamp() - $2::bigint * interval '1 millisecond' AND expires_at < clock_timestamp()
  ORDER BY ended_at LIMIT $1::integer
)
