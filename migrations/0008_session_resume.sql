-- Whether a stream may resume a session of an agent depends on who has held the agent since: `agent_liveness.instance`.
-- The nil UUID: no process has held the agent since it was created or moved. Null: a process held it that gave no
-- instance_id, or nobody did and the agent is older than this migration.
SET LOCAL lock_timeout = '10s';

ALTER TABLE agent_liveness ALTER COLUMN instance SET DEFAULT '00000000-0000-0000-0000-000000000000';

-- A move ends the session, and with it the history of holders: a stream of the claw that the agent comes back to resumes
-- its session although a process of another claw held the agent meanwhile.
CREATE FUNCTION forget_holders() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE agent_liveness SET instance = DEFAULT, generation = DEFAULT WHERE agent = NEW.id;
  RETURN NULL;
END
$$;

-- The writer of the move holds the lock of the liveness row already.
CREATE TRIGGER agents_moved AFTER UPDATE ON agents
FOR EACH ROW WHEN (OLD.claw_identifier <> NEW.claw_identifier) EXECUTE FUNCTION forget_holders();

-- Claims after a jump of the revision have greater epochs than this.
ALTER TABLE revision_jumps ADD COLUMN epoch bigint NOT NULL DEFAULT nextval('agent_epochs');

-- Whether a gap says that a part of the history was lost. A restart of the server leaves a gap, too, as does the migration to
-- this release ('unknown'): nearly always nothing was lost then, and the newest session that is known is the newest.
CREATE FUNCTION lost_history(reason text) RETURNS boolean LANGUAGE sql IMMUTABLE
RETURN reason NOT IN ('server_started', 'unknown');

-- Whether a claim was made before a restore or a failover that lost a part of the history. Later claims of the same agent
-- may be lost. A gap that no replica has noted yet counts, too. A gap without a reason is one of release 0.1, which noted
-- only restores and failovers.
CREATE FUNCTION is_before_lost_history(claim_epoch bigint) RETURNS boolean LANGUAGE sql STABLE
RETURN EXISTS (SELECT FROM revision_jumps j WHERE j.epoch > claim_epoch AND lost_history(coalesce(j.reason, '')))
  OR coalesce(lost_history(history_break()), false);
