-- `agent_liveness.instance` decides whether a stream may resume its session. The nil UUID: no process has held the
-- agent since it was created or moved. Null: a process without instance_id held it, or none did and the agent is older
-- than this migration.
SET LOCAL lock_timeout = '10s';

ALTER TABLE agent_liveness ALTER COLUMN instance SET DEFAULT '00000000-0000-0000-0000-000000000000';

-- A move ends the session and resets the instance. So a stream of the claw that the agent returns to may resume its
-- session, although a process of another claw held the agent in between.
CREATE FUNCTION reset_instance() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE agent_liveness SET instance = DEFAULT, generation = DEFAULT WHERE agent = NEW.id;
  RETURN NULL;
END
$$;

-- The transaction of the move already holds the lock of the liveness row.
CREATE TRIGGER agents_moved AFTER UPDATE ON agents
FOR EACH ROW WHEN (OLD.claw_identifier <> NEW.claw_identifier) EXECUTE FUNCTION reset_instance();

-- Claims after a revision gap have larger epochs than this.
ALTER TABLE revision_jumps ADD COLUMN epoch bigint NOT NULL DEFAULT nextval('agent_epochs');

-- Whether a gap means that a part of the history was lost. A restart of the server and the migration to this release
-- ('unknown') also leave a gap. In these cases nearly always nothing was lost, so the newest known session is the
-- newest.
CREATE FUNCTION lost_history(reason text) RETURNS boolean LANGUAGE sql IMMUTABLE
RETURN reason NOT IN ('server_started', 'unknown');

-- Whether a claim was made before a restore or failover that lost a part of the history, and with it perhaps later
-- claims of the agent. This includes a gap that no replica has recorded yet. A gap without a reason is one of release
-- 0.1, which recorded only restores and failovers.
CREATE FUNCTION is_before_lost_history(claim_epoch bigint) RETURNS boolean LANGUAGE sql STABLE
RETURN EXISTS (SELECT FROM revision_jumps j WHERE j.epoch > claim_epoch AND lost_history(coalesce(j.reason, '')))
  OR coalesce(lost_history(history_break()), false);
