-- The next transitions after a revision, and in the same snapshot how far the log goes: a short page means that there is
-- nothing else up to `newest`. Without transitions one row comes all the same, with nothing but the log's extent.
SELECT
  c.revision AS newest, c.oldest,
  EXISTS (SELECT FROM revision_jumps j WHERE j.from_revision < $1::bigint AND j.to_revision > $1::bigint) AS lost,
  t.*
FROM revision_counter c
LEFT JOIN LATERAL (
  SELECT * FROM agent_transitions l
  -- The counter's word first: an idle poll opens no partition.
  WHERE c.revision > $1::bigint AND l.revision > $1::bigint
  ORDER BY l.revision LIMIT $2::integer
) t ON true
ORDER BY t.revision
