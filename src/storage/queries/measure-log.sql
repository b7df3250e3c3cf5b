-- The size of the log and the moment of its oldest transition. It reads two index entries of each partition. Revisions
-- are consecutive except for revision gaps, which begin a new partition.
SELECT coalesce(sum(held.transitions), 0)::bigint AS transitions, (
  SELECT occurred_at FROM agent_transitions WHERE revision > (SELECT oldest FROM revision_counter) ORDER BY revision LIMIT 1
) AS oldest_at
FROM (
  SELECT substring(p.relname FROM '\d+$')::bigint AS lower_bound
  FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhrelid
  WHERE i.inhparent = 'agent_transitions'::regclass AND NOT i.inhdetachpending
) parts
CROSS JOIN LATERAL (
  SELECT max(revision) - min(revision) + 1 AS transitions FROM agent_transitions
  WHERE revision >= lower_bound AND revision < lower_bound + revisions_per_partition()
    AND revision > (SELECT oldest FROM revision_counter)
) held
