-- Says that the replica lives; also where others took it for dead and removed its row. Answers with those that do not.
WITH me AS (
  INSERT INTO replicas (id) OVERRIDING SYSTEM VALUE VALUES ($1::integer)
  ON CONFLICT (id) DO UPDATE SET seen_at = clock_timestamp()
)
SELECT r.id FROM replicas r
WHERE r.id <> $1::integer AND r.seen_at < clock_timestamp() - $2::integer * interval '1 millisecond'
