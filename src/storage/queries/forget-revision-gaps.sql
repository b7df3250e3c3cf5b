-- Nobody resumes from before the floor, so nobody needs to know what was lost there.
DELETE FROM revision_jumps WHERE to_revision <= (SELECT oldest FROM revision_counter)
