-- Partitions of the log that lie completely below the floor, oldest first: attached, half detached (after an aborted
-- attempt), or detached and not dropped yet.
SELECT p.relname AS name, i.inhrelid IS NOT NULL AS attached, coalesce(i.inhdetachpending, false) AS pending
FROM pg_class p LEFT JOIN pg_inherits i ON i.inhrelid = p.oid
WHERE p.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'agent_transitions'::regclass)
  AND p.relkind = 'r' AND p.relname ~ '^agent_transitions_\d+$'
  AND substring(p.relname FROM '\d+$')::bigint + revisions_per_partition() - 1 <= (SELECT oldest FROM revision_counter)
ORDER BY substring(p.relname FROM '\d+$')::bigint
