-- Commits a group of changes with their revisions and log rows in one round trip (see the comment of the function).
SELECT
  c.n, c.outcome, c.detail, c.given_revision, (c.state).*,
  (c.usr).id AS usr_id, (c.usr).username AS usr_username, (c.usr).email AS usr_email,
  (c.usr).display_name AS usr_display_name, (c.usr).created_at AS usr_created_at, (c.usr).agent_id AS usr_agent_id,
  clock_timestamp() AS read_at
FROM commit_changes($1::integer, $2::jsonb) c
