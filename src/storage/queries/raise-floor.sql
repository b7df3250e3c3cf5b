-- Raises the floor of the log over whole partitions, oldest first: those whose transitions are all older than $1
-- milliseconds, or followed by at least $2 newer ones. Reads never start below the floor (`oldest`), so these
-- partitions can be removed.
WITH parts AS (
  SELECT substring(p.relname FROM '\d+$')::bigint AS lower_bound
  FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhrelid
  WHERE i.inhparent = 'agent_transitions'::regclass AND NOT i.inhdetachpending
), measured AS (
  SELECT lower_bound, lower_bound + revisions_per_partition() AS upper_bound, held.transitions, newest.occurred_at
  FROM parts
  -- Revisions are consecutive except for revision gaps, so the difference is the number of transitions in a partition.
  CROSS JOIN LATERAL (
    SELECT coalesce(max(revision) - min(revision) + 1, 0) AS transitions, max(revision) AS newest FROM agent_transitions
    WHERE revision >= lower_bound AND revision < lower_bound + revisions_per_partition()
  ) held
  LEFT JOIN agent_transitions newest ON newest.revision = held.newest
), judged AS (
  SELECT lower_bound, upper_bound,
    upper_bound <= (SELECT revision FROM revision_counter)
    AND (coalesce(occurred_at, '-infinity') < clock_timestamp() - $1::bigint * interval '1 millisecond'
      OR sum(transitions) OVER (ORDER BY lower_bound DESC) - transitions >= $2::bigint) AS given_up
  FROM measured
)
UPDATE revision_counter c SET oldest = floor.revision
FROM (
  SELECT max(upper_bound) - 1 AS revision FROM judged
  WHERE given_up AND upper_bound <= (SELECT min(lower_bound) FROM judged WHERE NOT given_up)
) floor
WHERE floor.revision > c.oldest
RETURNING c.oldest
