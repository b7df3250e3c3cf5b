-- Deletes revision gaps below the floor, because no watcher can resume from there.
DELETE FROM revision_jumps WHERE to_revision <= (SELECT oldest FROM revision_counter)
