-- Commits a group of changes with the changes of wakes that belong to them (see the comment of the function).
SELECT
  c.n, c.outcome, c.detail, c.given_revision, (c.state).*,
  (c.usr).id AS usr_id, (c.usr).username AS usr_username, (c.usr).email AS usr_email,
  (c.usr).display_name AS usr_display_name, (c.usr).created_at AS usr_created_at, (c.usr).agent_id AS usr_agent_id,
  c.open_wake, c.queued_wakes, c.undone_claim, clock_timestamp() AS read_at
FROM commit_with_wakes($1::integer, $2::jsonb, $3::jsonb, $4::double precision, $5::integer) c
