-- A replica stops: other replicas may adopt its agents at once.
UPDATE replicas SET seen_at = '-infinity' WHERE id = $1::integer
