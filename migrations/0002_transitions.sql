-- The log of transitions: the only source of events. A row holds the whole agent after the transition (right before
-- it, for a deletion) and every filterable field before it, so watchers are served from it alone.
CREATE TABLE agent_transitions (
  revision bigint NOT NULL,
  agent bigint NOT NULL,
  agent_id text COLLATE "C" NOT NULL,
  user_id bigint NOT NULL,
  from_status text COLLATE "C",
  to_status text COLLATE "C",
  from_claw_identifier text COLLATE "C",
  to_claw_identifier text COLLATE "C",
  cause text COLLATE "C" NOT NULL,
  actor text COLLATE "C" NOT NULL,
  occurred_at timestamptz NOT NULL,
  request_id text COLLATE "C",
  incident_id text COLLATE "C",
  previous_revision bigint,
  exhausted_at timestamptz,
  recovery_at timestamptz,
  exhaust_reason text COLLATE "C",
  agent_created_at timestamptz NOT NULL,
  status_changed_at timestamptz NOT NULL,
  CONSTRAINT agent_transitions_pkey PRIMARY KEY (revision),
  CONSTRAINT agent_transitions_cause_known CHECK (
    cause IN ('created', 'report', 'service', 'lease_expired', 'goodbye', 'recovery', 'moved', 'deleted', 'heartbeat')
  ),
  CONSTRAINT agent_transitions_exhaustion_whole CHECK (num_nonnulls(exhausted_at, recovery_at, exhaust_reason) IN (0, 3)),
  CONSTRAINT agent_transitions_before_and_after CHECK (
    (from_status IS NULL) = (cause = 'created') AND (to_status IS NULL) = (cause = 'deleted')
    AND (from_claw_identifier IS NULL) = (cause = 'created') AND (to_claw_identifier IS NULL) = (cause = 'deleted')
  )
) PARTITION BY RANGE (revision);

CREATE INDEX agent_transitions_agent_id_idx ON agent_transitions (agent_id, revision);

-- The one row that gives revisions. Whoever changes it holds it until the commit, so revisions are in commit order.
CREATE TABLE revision_counter (
  singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
  revision bigint NOT NULL,
  -- Watching can go on from this revision, from none before it.
  oldest bigint NOT NULL,
  -- Revisions below it have a partition.
  partitioned_until bigint NOT NULL,
  -- Which server, and which of its histories, gave the last revision.
  system_identifier bigint NOT NULL,
  timeline text COLLATE "C" NOT NULL
) WITH (fillfactor = 10);

-- Places where a history was lost (a restore, a failover to a standby that lagged): revisions strictly between the two
-- may have been seen by watchers, and are nobody's any more.
CREATE TABLE revision_jumps (
  to_revision bigint PRIMARY KEY,
  from_revision bigint NOT NULL,
  occurred_at timestamptz NOT NULL
);

-- The insertion timeline: of pg_control_checkpoint the one after a promotion would be known only at the next checkpoint.
CREATE FUNCTION current_timeline() RETURNS text LANGUAGE sql VOLATILE
RETURN left(pg_walfile_name(pg_current_wal_insert_lsn()), 8);

-- Where a new history begins: beyond whatever another one can have given, since none gives 1 024 revisions a millisecond.
CREATE FUNCTION revision_of_this_moment() RETURNS bigint LANGUAGE sql VOLATILE
RETURN floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint * 1024;

-- How many revisions a partition holds. Its table is named after the first of them.
CREATE FUNCTION revisions_per_partition() RETURNS bigint LANGUAGE sql IMMUTABLE
RETURN 1000000;

-- There are always two partitions beyond the one in use.
CREATE FUNCTION add_transition_partitions(revision bigint) RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  size CONSTANT bigint := revisions_per_partition();
  lower_bound bigint := revision / size * size;
  partition text;
BEGIN
  FOR step IN 0..2 LOOP
    partition := 'agent_transitions_' || lower_bound;
    IF to_regclass(partition) IS NULL THEN
      -- ATTACH instead of PARTITION OF: it does not lock out whoever reads or writes the log meanwhile.
      EXECUTE format('CREATE TABLE %I (LIKE agent_transitions INCLUDING ALL)', partition);
      EXECUTE format('ALTER TABLE agent_transitions ATTACH PARTITION %I FOR VALUES FROM (%s) TO (%s)', partition, lower_bound, lower_bound + size);
    END IF;
    lower_bound := lower_bound + size;
  END LOOP;
  RETURN lower_bound;
END
$$;

INSERT INTO revision_counter (revision, oldest, partitioned_until, system_identifier, timeline)
SELECT r, r, add_transition_partitions(r), (SELECT system_identifier FROM pg_control_system()), current_timeline()
FROM revision_of_this_moment() r;

-- Locks the counter until the commit. Where another server, or another of its histories, gave the last revision, it first
-- moves on beyond whatever that one can have given, and beyond `seen`, which somebody has seen of it; the jump is recorded.
CREATE FUNCTION take_counter(seen bigint DEFAULT 0) RETURNS revision_counter LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  counter revision_counter;
  timeline_now text;
  system_now bigint;
  jump_to bigint;
BEGIN
  SELECT * INTO counter FROM revision_counter FOR UPDATE;
  timeline_now := current_timeline();
  SELECT s.system_identifier INTO system_now FROM pg_control_system() s;
  IF counter.timeline <> timeline_now OR counter.system_identifier <> system_now OR counter.revision < seen THEN
    jump_to := greatest(counter.revision + 1, seen + 1, revision_of_this_moment());
    INSERT INTO revision_jumps (from_revision, to_revision, occurred_at) VALUES (counter.revision, jump_to, clock_timestamp());
    UPDATE revision_counter SET revision = jump_to, partitioned_until = add_transition_partitions(jump_to + 1),
      timeline = timeline_now, system_identifier = system_now
    RETURNING * INTO counter;
  END IF;
  RETURN counter;
END
$$;
