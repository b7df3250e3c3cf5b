-- The next transitions after a revision, and in the same snapshot how far the log goes: a short page means that there is
-- nothing else up to `newest`. Without transitions one row comes all the same, with nothing but the log's extent.
SELECT c.revision AS newest, c.oldest, g.gaps, b.history_break, t.*
FROM revision_counter c
CROSS JOIN history_break() b (history_break)
CROSS JOIN (
  -- Each by itself: what lies between two gaps is not lost. As text, since numbers of JSON lose digits.
  SELECT jsonb_agg(jsonb_build_array(from_revision::text, to_revision::text) ORDER BY to_revision) AS gaps
  FROM revision_jumps WHERE to_revision > $1::bigint
) g
LEFT JOIN LATERAL (
  SELECT * FROM agent_transitions l
  -- The counter's word first: an idle poll opens no partition.
  WHERE c.revision > $1::bigint AND l.revision > $1::bigint
  ORDER BY l.revision LIMIT $2::integer
) t ON true
ORDER BY t.revision
