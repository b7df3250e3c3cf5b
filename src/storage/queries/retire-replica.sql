-- A replica that stops: its agents may be adopted at once.
UPDATE replicas SET seen_at = '-infinity' WHERE id = $1::integer
