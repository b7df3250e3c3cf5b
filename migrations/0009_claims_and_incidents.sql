-- Claims: a service cannot claim a suspect agent, and a claim that the agent does not confirm lapses. Incidents: agents
-- that never sent a heartbeat cause none, and the log of transitions can be searched by them.

-- The index is built while `agents` accepts no writes, which takes about half a second for a million agents.
SET LOCAL lock_timeout = '10s';

-- not_suspect: applies only to an agent that is not suspect. lapses_to: with hold 'set'; the status that an unconfirmed
-- claim returns to. claim_known: of a quiet write; the agent knows of the claim. deadline: applies only if this deadline
-- of the agent (`agent_deadlines.kind`) has passed.
ALTER TYPE agent_change ADD ATTRIBUTE not_suspect boolean, ADD ATTRIBUTE lapses_to text, ADD ATTRIBUTE claim_known boolean,
  ADD ATTRIBUTE deadline text;

-- The status that the agent returns to if it does not confirm a claim before hold_until. Null: no claim waits. It is no
-- column of agent_states: another row type would break the prepared statements of the previous release.
ALTER TABLE agents ADD COLUMN lapses_to text COLLATE "C";
ALTER TABLE agents ADD CONSTRAINT agents_lapses_to_a_working_status
  CHECK (lapses_to IS NULL OR lapses_to IN ('idle', 'on_call', 'busy') AND status IN ('on_call', 'busy') AND lapses_to <> status AND hold_until IS NOT NULL)
  NOT VALID;
CREATE INDEX agents_unconfirmed_claims_idx ON agents (hold_until) WHERE lapses_to IS NOT NULL;

-- Whether the brake delays the expiry of a lease with this end. The same rule as agent_states.suspect_since.
CREATE FUNCTION is_suspect(lease_end timestamptz) RETURNS boolean LANGUAGE sql VOLATILE
RETURN lease_end <= clock_timestamp() AND EXISTS (SELECT FROM fleet_state f WHERE f.brake_engaged_at IS NOT NULL);

-- When a guard was set. A guard extends deadlines that were running at that time, and no later ones: an agent could
-- have been heard since.
ALTER TABLE replicas ADD COLUMN guarded_at timestamptz;
ALTER TABLE fleet_state ADD COLUMN guarded_at timestamptz;

-- A trigger, because replicas of the previous release set guards, too.
CREATE FUNCTION note_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.guarded_at := clock_timestamp();
  RETURN NEW;
END
$$;

CREATE TRIGGER replicas_guard_begins BEFORE INSERT ON replicas
FOR EACH ROW WHEN (NEW.no_lease_ends_before IS NOT NULL) EXECUTE FUNCTION note_guard();
CREATE TRIGGER replicas_guarded BEFORE UPDATE OF no_lease_ends_before ON replicas
FOR EACH ROW WHEN (NEW.no_lease_ends_before IS DISTINCT FROM OLD.no_lease_ends_before) EXECUTE FUNCTION note_guard();
CREATE TRIGGER fleet_guarded BEFORE UPDATE OF no_lease_ends_before ON fleet_state
FOR EACH ROW WHEN (NEW.no_lease_ends_before IS DISTINCT FROM OLD.no_lease_ends_before) EXECUTE FUNCTION note_guard();

-- The stored deadlines of agents: what happens at one is a rule of its kind (`src/liveness/deadline-rules.ts`). set_at:
-- from when on an outage extends it. A further kind is a further SELECT with an index on its due_at. A row may be early
-- if its rule checks the exact deadline: so a deadline that moves often need not move in the index.
CREATE VIEW agent_deadlines AS
SELECT a.id AS agent, 'claim'::text COLLATE "C" AS kind, a.status_changed_at AS set_at, a.hold_until AS due_at
FROM agents a WHERE a.lapses_to IS NOT NULL;

-- The deadlines that an outage extends, and until when (microseconds since 1970, by n), as guards delay the expiry of
-- leases: the agent could not be heard. Their rows are locked.
CREATE FUNCTION guarded_deadlines(members agent_change[], due integer[], moment timestamptz) RETURNS jsonb LANGUAGE sql VOLATILE
RETURN (
  SELECT coalesce(jsonb_object_agg(h.n, micros_of(h.until)), '{}')
  FROM (
    SELECT c.n, CASE
        WHEN r.id IS NULL THEN greatest(CASE WHEN f.guarded_at > d.set_at THEN f.no_lease_ends_before END, unnoticed_fleet_guard())
        WHEN w.id IS NULL OR is_isolated(w) OR greatest(r.guarded_at, w.guarded_at, f.guarded_at) > d.set_at THEN g.until
      END
      -- An agent with a longer lease beats less often.
      + CASE WHEN l.lease_expires_at - l.last_heartbeat > f.lease_ms * interval '1 millisecond' + interval '1 millisecond'
        THEN longer_lease(l, f.lease_ms * interval '1 millisecond') ELSE interval '0' END AS until
    FROM unnest(members) c
      JOIN agent_deadlines d ON d.agent = c.id AND d.kind = c.deadline
      JOIN agent_liveness l ON l.agent = c.id
      CROSS JOIN fleet_state f
      LEFT JOIN replicas r ON r.id = l.replica_id
      LEFT JOIN replicas w ON w.id = coalesce(r.adopted_by, r.id)
      LEFT JOIN lease_guards g ON g.replica_id = r.id
    WHERE c.n = ANY (due)
  ) h WHERE h.until > moment
);

-- When the agent moved to its claw. Null: never, or before this migration.
ALTER TABLE agent_liveness ADD COLUMN joined_at timestamptz;

-- A move ends the session, and the heartbeats before it were of another claw.
CREATE OR REPLACE FUNCTION reset_instance() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE agent_liveness SET instance = DEFAULT, generation = DEFAULT, joined_at = clock_timestamp() WHERE agent = NEW.id;
  RETURN NULL;
END
$$;

-- Whether the agent's present claw has ever sent a heartbeat for it.
CREATE FUNCTION is_heard(l agent_liveness) RETURNS boolean LANGUAGE sql IMMUTABLE
RETURN coalesce(l.last_heartbeat > coalesce(l.joined_at, '-infinity'), false);

-- The address from which each claw connected last.
CREATE TABLE claw_connections (
  claw_identifier text COLLATE "C" PRIMARY KEY,
  peer text NOT NULL,
  connected_at timestamptz NOT NULL
) WITH (fillfactor = 50);

-- Every incident whose transitions are kept. claw_incidents has the present one of each claw.
CREATE TABLE incidents (
  number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  incident_id text COLLATE "C" NOT NULL CONSTRAINT incidents_incident_id_key UNIQUE,
  claw_identifier text COLLATE "C" NOT NULL,
  -- When the first agent went offline. Its transitions have larger revisions than after_revision.
  since timestamptz NOT NULL,
  after_revision bigint NOT NULL,
  -- At that time: the agents of the claw that were not offline, its newest heartbeat, and its address. Null: unknown.
  silent_agents bigint,
  last_heartbeat timestamptz,
  peer text
);

CREATE INDEX incidents_claw_identifier_idx ON incidents (claw_identifier, number);

-- Judges expired leases, whose rows are locked. `guarded`: the leases that must not expire yet, and until when
-- (microseconds since 1970, by n). `incidents`: the leases that expire with a silent claw, with its incident, and
-- whether this group is the first to report it.
CREATE OR REPLACE FUNCTION judge_lease_ends(members agent_change[], ending integer[], moment timestamptz, OUT guarded jsonb, OUT incidents jsonb)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
  fleet fleet_state;
  fleet_lease interval;
  free integer[];
  recent bigint;
  tokens double precision;
  used bigint;
  ask_every interval;
  first_ask timestamptz;
BEGIN
  guarded := '{}';
  incidents := '{}';
  -- Serialises the expiry of all replicas: they share one measurement and one token bucket.
  SELECT * INTO fleet FROM fleet_state FOR UPDATE;
  fleet_lease := fleet.lease_ms * interval '1 millisecond';

  SELECT coalesce(jsonb_object_agg(h.n, micros_of(h.until)), '{}') INTO guarded
  FROM (
    -- An agent whose replica has no row may have tried any replica, so the fleet's guard applies.
    SELECT c.n, CASE WHEN g.replica_id IS NULL THEN greatest(fleet.no_lease_ends_before, unnoticed_fleet_guard()) ELSE g.until END
      -- A lease that a unary heartbeat requested may be longer than the fleet's, and its agent beats less often. A
      -- guard gives it a whole lease of its own length. Most leases are a microsecond longer, because their row read
      -- the clock twice.
      + CASE WHEN l.lease_expires_at - l.last_heartbeat > fleet_lease + interval '1 millisecond' THEN longer_lease(l, fleet_lease)
        ELSE interval '0' END AS until
    FROM unnest(members) c JOIN agent_liveness l ON l.agent = c.id LEFT JOIN lease_guards g ON g.replica_id = l.replica_id
    WHERE c.n = ANY (ending)
  ) h WHERE h.until > moment;

  SELECT coalesce(array_agg(e.n), '{}') INTO free FROM unnest(ending) e (n) WHERE NOT guarded ? e.n::text;
  IF free = '{}' THEN RETURN; END IF;

  -- A claw is silent if none of its agents sent a heartbeat for two intervals: then all its leases expire within the
  -- third. Each claw is checked once, however many of its agents are in the group. An agent that this claw never sent a
  -- heartbeat for says nothing about it.
  WITH ended AS MATERIALIZED (
    SELECT a.claw_identifier, max(e.lease_expires_at) AS ends
    FROM unnest(members) c JOIN agents a ON a.id = c.id JOIN agent_liveness e ON e.agent = c.id
    WHERE c.n = ANY (free) AND is_heard(e) GROUP BY a.claw_identifier
  ), silent AS (
    SELECT e.claw_identifier, e.ends FROM ended e
    WHERE NOT EXISTS (
      SELECT FROM agents o JOIN agent_liveness l ON l.agent = o.id
      WHERE o.claw_identifier = e.claw_identifier AND l.lease_expires_at > moment + fleet.interval_ms * interval '1 millisecond'
        AND is_heard(l)
    )
    ORDER BY e.claw_identifier
  ), noted AS (
    INSERT INTO claw_incidents AS i (claw_identifier, incident_id, began_at, last_at, ended_at)
    SELECT s.claw_identifier, coalesce(k.incident_id, gen_random_uuid()::text), coalesce(k.began_at, moment), moment, k.ended_at
    -- A heartbeat after the last expiry gives a lease that ends at least one lease later. Otherwise the same incident
    -- continues, even if a brake or a guard delayed it for long.
    FROM silent s LEFT JOIN claw_incidents k ON k.claw_identifier = s.claw_identifier
      AND k.last_at >= s.ends - fleet.lease_ms * interval '1 millisecond'
    ON CONFLICT (claw_identifier) DO UPDATE SET incident_id = excluded.incident_id, began_at = excluded.began_at,
      last_at = excluded.last_at, ended_at = excluded.ended_at
    RETURNING i.claw_identifier, i.incident_id, i.ended_at
  )
  SELECT coalesce(jsonb_object_agg(c.n, jsonb_build_object('id', s.incident_id, 'new', s.ended_at IS NULL)), '{}') INTO incidents
  FROM unnest(members) c JOIN agents a ON a.id = c.id JOIN agent_liveness l ON l.agent = c.id
    JOIN noted s ON s.claw_identifier = a.claw_identifier
  WHERE c.n = ANY (free) AND is_heard(l);

  SELECT count(*) INTO recent FROM claw_incidents i WHERE i.began_at > moment - fleet.lease_ms * interval '1 millisecond';
  IF fleet.brake_engaged_at IS NULL AND is_mass_silence(recent, fleet.claws) THEN
    fleet.brake_engaged_at := moment;
    -- Count now: the fleet statistics are some seconds old, and a rate that is too low would delay the first agents for
    -- too long.
    SELECT count(*) / (4 * fleet.lease_ms / 1000.0) INTO fleet.brake_rate FROM agent_liveness l WHERE l.lease_expires_at IS NOT NULL;
    fleet.brake_tokens := 0;
    fleet.brake_filled_at := moment;
    fleet.brake_held_back := 0;
    fleet.brake_next_ask := moment;
  END IF;

  IF fleet.brake_engaged_at IS NOT NULL THEN
    -- At this rate the whole fleet expires within four leases. With the lease that has to expire first, that is within
    -- six. This also holds for a fleet that grows meanwhile.
    fleet.brake_rate := greatest(fleet.brake_rate, greatest(fleet.agents, cardinality(free)) / (4 * fleet.lease_ms / 1000.0));
    -- Each delayed lease gets its own moment to ask again, in sequence over all replicas. So all of them together ask
    -- at twice the rate of the bucket, however many they are. A lower rate would leave tokens unused.
    ask_every := interval '1 second' / (2 * fleet.brake_rate);
    -- The bucket holds the tokens of one second, and at least two. Otherwise a late request would lose a token.
    tokens := least(greatest(2, fleet.brake_rate), fleet.brake_tokens
      + fleet.brake_rate * extract(epoch FROM moment - fleet.brake_filled_at)::double precision);
    first_ask := greatest(fleet.brake_next_ask, moment + interval '250 milliseconds');
    WITH queued AS (
      SELECT c.n, row_number() OVER (ORDER BY l.lease_expires_at, l.agent) AS place
      FROM unnest(members) c JOIN agent_liveness l ON l.agent = c.id WHERE c.n = ANY (free)
    ), held_back AS (
      SELECT q.n, first_ask + (q.place - floor(tokens)) * ask_every AS until FROM queued q WHERE q.place > floor(tokens)
    )
    SELECT guarded || coalesce(jsonb_object_agg(h.n, micros_of(h.until)), '{}'), cardinality(free) - count(*),
      coalesce(max(h.until), fleet.brake_next_ask)
    INTO guarded, used, fleet.brake_next_ask FROM held_back h;
    UPDATE fleet_state SET brake_engaged_at = fleet.brake_engaged_at, brake_rate = fleet.brake_rate,
      brake_tokens = tokens - used, brake_filled_at = moment, brake_held_back = fleet.brake_held_back,
      brake_next_ask = fleet.brake_next_ask;
  END IF;

  WITH begun AS (
    UPDATE claw_incidents i SET ended_at = moment
    FROM unnest(members) c JOIN agents a ON a.id = c.id
    WHERE i.claw_identifier = a.claw_identifier AND i.ended_at IS NULL AND incidents ? c.n::text AND NOT guarded ? c.n::text
    RETURNING i.claw_identifier, i.incident_id
  )
  INSERT INTO incidents (incident_id, claw_identifier, since, after_revision, silent_agents, last_heartbeat, peer)
  SELECT b.incident_id, b.claw_identifier, moment, r.revision, o.agents, o.last_heartbeat, p.peer
  FROM begun b CROSS JOIN revision_counter r
    CROSS JOIN LATERAL (
      SELECT count(*) AS agents, max(l.last_heartbeat) AS last_heartbeat
      FROM agents a JOIN agent_liveness l ON l.agent = a.id
      WHERE a.claw_identifier = b.claw_identifier AND l.lease_expires_at IS NOT NULL AND is_heard(l)
    ) o
    LEFT JOIN claw_connections p ON p.claw_identifier = b.claw_identifier
  ON CONFLICT (incident_id) DO NOTHING;
END
$$;

-- Commits a group of changes of different agents in one round trip. With several round trips, a replica that freezes
-- with the lock of the counter would stop all others. VOLATILE, so that each statement sees what was committed before
-- its locks.
--
-- Locks are always taken in this order: liveness rows by id, agent rows by id, the fleet, request ids, names, the
-- counter. If two groups still deadlock (a name of one is the agent_id of the other), one is repeated.
--
-- Outcomes: 'committed' (detail names a claw that fell silent by it); 'stale' (judge again); 'late' (not_after has
-- passed, so the caller no longer waits); 'conflict' (detail names the constraint); 'guarded' (the lease must not
-- expire yet, or an outage extends the deadline; detail is when to ask again, in microseconds since 1970).
CREATE OR REPLACE FUNCTION commit_changes(replica integer, changes jsonb)
RETURNS TABLE (n integer, outcome text, detail text, given_revision bigint, state agent_states, usr user_states)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
  members agent_change[];
  ids bigint[];
  fit integer[];
  refused_n integer[] := '{}';
  refused_constraint text[] := '{}';
  violated text;
  moment timestamptz;
  transitions bigint;
  counter revision_counter;
  place integer;
  ending integer[];
  due integer[];
  guarded jsonb := '{}';
  incidents jsonb := '{}';
  first_deadline timestamptz;
  late integer[] := '{}';
BEGIN
  SELECT array_agg(c), array_agg(c.id) FILTER (WHERE c.id IS NOT NULL), min(c.not_after)
  INTO members, ids, first_deadline FROM jsonb_populate_recordset(NULL::agent_change, changes) c;

  PERFORM FROM agent_liveness l WHERE l.agent = ANY (ids) ORDER BY l.agent FOR UPDATE;
  PERFORM FROM agents a WHERE a.id = ANY (ids) ORDER BY a.id FOR UPDATE;

  moment := clock_timestamp();
  SELECT coalesce(array_agg(c.n), '{}') INTO fit
  FROM unnest(members) c JOIN agent_liveness l ON l.agent = c.id
  WHERE l.revision = c.expect_revision
    AND (c.expect_epoch IS NULL OR l.epoch = c.expect_epoch)
    AND (NOT coalesce(c.lease_ended, false) OR l.lease_expires_at <= moment)
    AND (c.not_before IS NULL OR c.not_before <= moment)
    AND (NOT coalesce(c.not_suspect, false) OR NOT is_suspect(l.lease_expires_at))
    AND (c.deadline IS NULL OR EXISTS (
      SELECT FROM agent_deadlines d WHERE d.agent = c.id AND d.kind = c.deadline AND d.due_at <= moment
    ))
    AND (c.not_after IS NULL OR c.not_after > moment);

  -- Judges expired leases: guards and the brake may delay them.
  SELECT array_agg(c.n) INTO ending FROM unnest(members) c WHERE c.n = ANY (fit) AND c.lease_ended;
  IF ending IS NOT NULL THEN
    SELECT j.guarded, j.incidents INTO guarded, incidents FROM judge_lease_ends(members, ending, moment) j;
    SELECT coalesce(array_agg(f.n), '{}') INTO fit FROM unnest(fit) f (n) WHERE NOT guarded ? f.n::text;
  END IF;

  SELECT array_agg(c.n) INTO due FROM unnest(members) c WHERE c.n = ANY (fit) AND c.deadline IS NOT NULL;
  IF due IS NOT NULL THEN
    guarded := guarded || guarded_deadlines(members, due, moment);
    SELECT coalesce(array_agg(f.n), '{}') INTO fit FROM unnest(fit) f (n) WHERE NOT guarded ? f.n::text;
  END IF;

  -- A request that another replica or member is committing at this moment is stale: judged again, it finds the stored
  -- response.
  WITH asked AS MATERIALIZED (
    SELECT c.n, c.principal, c.request_id, c.fingerprint FROM unnest(members) c WHERE c.n = ANY (fit)
    ORDER BY c.request_id, c.principal, c.n
  )
  SELECT coalesce(array_agg(a.n), '{}') INTO fit FROM asked a
  WHERE a.request_id IS NULL OR claim_request_id(coalesce(a.principal, ''), a.request_id, a.fingerprint);

  FOR place IN
    -- Ordered by names: otherwise two groups that create the same users could deadlock.
    SELECT p FROM generate_subscripts(members, 1) p WHERE members[p].kind = 'create' ORDER BY members[p].username, members[p].agent_id
  LOOP
    DECLARE
      c agent_change := members[place];
    BEGIN
      CONTINUE WHEN c.not_after <= moment;
      CONTINUE WHEN c.request_id IS NOT NULL AND NOT claim_request_id(coalesce(c.principal, ''), c.request_id, c.fingerprint);
      IF c.username IS NOT NULL THEN
        INSERT INTO users (username, email, display_name) VALUES (c.username, c.email, c.display_name)
        RETURNING users.id INTO c.user_id;
      END IF;
      INSERT INTO agents (user_id, agent_id, claw_identifier, status, created_at, status_changed_at, revision)
      VALUES (c.user_id, c.agent_id, c.claw_identifier, 'idle', moment, moment, 0) RETURNING agents.id INTO c.id;
      INSERT INTO agent_liveness (agent, revision, epoch, replica_id) VALUES (c.id, 0, nextval('agent_epochs'), replica);
      members[place] := c;
      fit := fit || c.n;
    EXCEPTION WHEN unique_violation OR foreign_key_violation THEN
      GET STACKED DIAGNOSTICS violated = CONSTRAINT_NAME;
      refused_n := refused_n || c.n;
      refused_constraint := refused_constraint || violated;
    END;
  END LOOP;

  SELECT count(*) INTO transitions FROM unnest(members) c WHERE c.n = ANY (fit) AND NOT c.quiet;
  IF transitions > 0 THEN
    counter := take_counter();
    IF counter.revision + transitions + revisions_per_partition() >= counter.partitioned_until THEN
      -- Starting at the next revision: a group may begin in one partition and end in the next.
      counter.partitioned_until := add_transition_partitions(counter.revision + 1);
    END IF;
    -- Read the clock after the counter is locked, so that times ascend with revisions.
    moment := clock_timestamp();
  END IF;

  -- The group holds all its locks now, and nothing waits before the commit. Only late members are dropped: otherwise
  -- callers with short deadlines could fail the whole group.
  IF first_deadline <= clock_timestamp() THEN
    SELECT coalesce(array_agg(c.n), '{}') INTO late FROM unnest(members) c WHERE c.not_after <= clock_timestamp();
    PERFORM undo_members(members, (SELECT array_agg(f.n) FROM unnest(fit) f (n) WHERE f.n = ANY (late)));
    SELECT coalesce(array_agg(f.n), '{}') INTO fit FROM unnest(fit) f (n) WHERE f.n <> ALL (late);
    SELECT count(*) INTO transitions FROM unnest(members) c WHERE c.n = ANY (fit) AND NOT c.quiet;
  END IF;

  IF transitions > 0 THEN
    UPDATE revision_counter SET revision = counter.revision + transitions, partitioned_until = counter.partitioned_until;
  END IF;

  RETURN QUERY
  WITH fitting AS MATERIALIZED (
    SELECT c.*, CASE WHEN NOT c.quiet THEN counter.revision + row_number() OVER (PARTITION BY c.quiet ORDER BY c.n) END AS given
    FROM unnest(members) c WHERE c.n = ANY (fit)
  ), after AS MATERIALIZED (
    SELECT f.n, f.kind, f.cause, f.actor, f.request_id, incidents -> f.n::text ->> 'id' AS incident_id, f.given, f.quiet, f.lease, f.lease_ms, f.heartbeat, f.held, f.new_epoch,
      f.delete_user, b.id, b.user_id, b.agent_id, b.created_at, b.revision AS previous_revision,
      b.status AS from_status, b.claw_identifier AS from_claw_identifier,
      CASE f.kind WHEN 'update' THEN f.status ELSE b.status END AS status,
      coalesce(f.claw_identifier, b.claw_identifier) AS claw_identifier,
      CASE WHEN f.status <> b.status THEN moment ELSE b.status_changed_at END AS status_changed_at,
      CASE f.exhaustion WHEN 'keep' THEN b.exhaust_reason WHEN 'set' THEN f.exhaust_reason END AS exhaust_reason,
      CASE WHEN f.exhaustion = 'keep' OR f.exhaustion = 'set' AND f.keep_exhausted_at THEN b.exhausted_at
        WHEN f.exhaustion = 'set' THEN moment END AS exhausted_at,
      CASE f.exhaustion WHEN 'keep' THEN b.recovery_at
        WHEN 'set' THEN coalesce(f.recovery_at, moment + f.recovery_after_ms * interval '1 millisecond') END AS recovery_at,
      coalesce(f.backoff_steps, b.backoff_steps) AS backoff_steps,
      CASE f.exhaustion WHEN 'keep' THEN b.backoff_at ELSE moment END AS backoff_at,
      f.hold, f.hold_ms, b.hold_revision, b.hold_until,
      -- Every transition ends the rule for unconfirmed claims, and a claim begins it.
      CASE WHEN f.hold = 'set' THEN f.lapses_to
        WHEN f.quiet AND f.hold = 'keep' AND NOT coalesce(f.claim_known, false) THEN b.lapses_to END AS lapses_to
    FROM fitting f JOIN agents b ON b.id = f.id
  ), logged AS (
    INSERT INTO agent_transitions
    SELECT a.given, a.id, a.agent_id, a.user_id,
      CASE WHEN a.kind <> 'create' THEN a.from_status END, CASE WHEN a.kind <> 'delete' THEN a.status END,
      CASE WHEN a.kind <> 'create' THEN a.from_claw_identifier END, CASE WHEN a.kind <> 'delete' THEN a.claw_identifier END,
      a.cause, a.actor, moment, a.request_id, a.incident_id, CASE WHEN a.kind <> 'create' THEN a.previous_revision END,
      a.exhausted_at, a.recovery_at, a.exhaust_reason, a.created_at, a.status_changed_at
    FROM after a WHERE NOT a.quiet
  ), changed AS (
    UPDATE agents SET status = a.status, claw_identifier = a.claw_identifier, status_changed_at = a.status_changed_at,
      exhaust_reason = a.exhaust_reason, exhausted_at = a.exhausted_at, recovery_at = a.recovery_at,
      backoff_steps = a.backoff_steps, backoff_at = a.backoff_at, revision = coalesce(a.given, agents.revision),
      hold_revision = CASE a.hold WHEN 'keep' THEN a.hold_revision WHEN 'set' THEN a.given END,
      hold_until = CASE a.hold WHEN 'keep' THEN a.hold_until
        WHEN 'set' THEN coalesce(moment + a.hold_ms * interval '1 millisecond', a.recovery_at) END,
      lapses_to = a.lapses_to
    FROM after a WHERE agents.id = a.id AND a.kind <> 'delete'
      AND (NOT a.quiet OR a.hold <> 'keep' OR a.lapses_to IS DISTINCT FROM agents.lapses_to)
    RETURNING agents.*
  ), kept_alive AS (
    UPDATE agent_liveness l SET revision = coalesce(a.given, l.revision),
      last_heartbeat = CASE WHEN a.heartbeat THEN moment ELSE l.last_heartbeat END,
      lease_expires_at = CASE a.lease WHEN 'keep' THEN l.lease_expires_at
        WHEN 'grant' THEN moment + a.lease_ms * interval '1 millisecond' END,
      held = coalesce(a.held, l.held),
      epoch = CASE WHEN a.new_epoch THEN nextval('agent_epochs') ELSE l.epoch END,
      -- The replica that ends a session or brings an agent back watches its lease.
      replica_id = CASE WHEN a.lease = 'end' THEN NULL WHEN a.new_epoch OR a.lease = 'grant' AND a.from_status = 'offline' THEN replica ELSE l.replica_id END
    FROM after a WHERE l.agent = a.id AND a.kind <> 'delete'
    RETURNING l.*
  )
  SELECT a.n, 'committed', CASE WHEN incidents -> a.n::text ->> 'new' = 'true' THEN a.claw_identifier END, a.given,
    ROW(a.id, a.user_id, a.agent_id, a.claw_identifier, a.status, a.exhausted_at, a.recovery_at, a.exhaust_reason, a.created_at,
      a.status_changed_at, coalesce(a.given, a.previous_revision), a.backoff_steps, a.backoff_at,
      coalesce(g.hold_revision, CASE WHEN g.id IS NULL THEN a.hold_revision END),
      coalesce(g.hold_until, CASE WHEN g.id IS NULL THEN a.hold_until END),
      coalesce(k.epoch, l.epoch), coalesce(k.held, l.held), coalesce(k.last_heartbeat, l.last_heartbeat),
      coalesce(k.lease_expires_at, l.lease_expires_at), coalesce(k.replica_id, l.replica_id), NULL)::agent_states,
    CASE WHEN a.kind = 'create' THEN ROW(u.id, u.username, u.email, u.display_name, u.created_at, a.agent_id)::user_states END
  FROM after a LEFT JOIN changed g ON g.id = a.id LEFT JOIN kept_alive k ON k.agent = a.id
    LEFT JOIN agent_liveness l ON a.kind = 'delete' AND l.agent = a.id
    LEFT JOIN users u ON a.kind = 'create' AND u.id = a.user_id
  UNION ALL
  SELECT r.n, 'conflict', r.violated, NULL, NULL::agent_states, NULL::user_states
  FROM unnest(refused_n, refused_constraint) r (n, violated)
  UNION ALL
  SELECT g.key::integer, 'guarded', g.value, NULL, NULL::agent_states, NULL::user_states FROM jsonb_each_text(guarded) g;

  -- Most groups have no such members, and the comparison takes a tenth of the group's time.
  IF cardinality(fit) < cardinality(members) THEN
    RETURN QUERY
    SELECT c.n, CASE WHEN c.n = ANY (late) OR c.not_after <= moment THEN 'late' ELSE 'stale' END, NULL::text, NULL::bigint, NULL::agent_states, NULL::user_states
    FROM unnest(members) c WHERE c.n <> ALL (fit) AND c.n <> ALL (refused_n) AND NOT guarded ? c.n::text;
  END IF;

  IF EXISTS (SELECT FROM unnest(members) c WHERE c.kind = 'delete' AND c.n = ANY (fit)) THEN
    DELETE FROM agent_liveness l USING unnest(members) c WHERE l.agent = c.id AND c.kind = 'delete' AND c.n = ANY (fit);
    DELETE FROM agents a USING unnest(members) c WHERE a.id = c.id AND c.kind = 'delete' AND c.n = ANY (fit);
    DELETE FROM users u USING unnest(members) c WHERE u.id = c.user_id AND c.delete_user AND c.n = ANY (fit);
  END IF;

  IF EXISTS (SELECT FROM unnest(members) c WHERE c.request_id IS NOT NULL AND c.n = ANY (fit)) THEN
    UPDATE request_ids r SET agent_state = to_jsonb(s), user_state = to_jsonb(u), revision = s.revision
    FROM unnest(members) c
      LEFT JOIN agent_states s ON s.id = c.id LEFT JOIN user_states u ON c.kind = 'create' AND u.id = c.user_id
    WHERE r.request_id = c.request_id AND r.principal = coalesce(c.principal, '') AND c.n = ANY (fit) AND c.kind <> 'delete';
    UPDATE request_ids r SET revision = t.revision
    FROM unnest(members) c JOIN agent_transitions t ON t.agent = c.id AND t.revision > counter.revision
    WHERE r.request_id = c.request_id AND r.principal = coalesce(c.principal, '') AND c.n = ANY (fit) AND c.kind = 'delete';
  END IF;
END
$$;

-- The largest revision between low and high such that all transitions up to it happened before an instant. A binary
-- search, because times ascend with revisions; an index would cost every transition.
CREATE FUNCTION revision_before(instant timestamptz, low bigint, high bigint) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
DECLARE
  middle bigint;
  found_revision bigint;
  found_at timestamptz;
BEGIN
  WHILE low < high LOOP
    middle := low + (high - low) / 2;
    SELECT t.revision, t.occurred_at INTO found_revision, found_at FROM agent_transitions t
    WHERE t.revision > middle AND t.revision <= high ORDER BY t.revision LIMIT 1;
    IF found_revision IS NULL OR found_at >= instant THEN high := middle; ELSE low := found_revision; END IF;
  END LOOP;
  RETURN low;
END
$$;

-- Indexes for the filters of ListAgentTransitions. At first on each partition: older ones get no more rows, so nothing
-- waits for them. The partition in use comes last, which takes a second or two for a million rows. The indexes of the
-- whole table then take these over.
DO $$
DECLARE
  partition regclass;
BEGIN
  FOR partition IN
    SELECT i.inhrelid::regclass FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhrelid
    WHERE i.inhparent = 'agent_transitions'::regclass ORDER BY substring(p.relname FROM '[0-9]+$')::bigint
  LOOP
    EXECUTE format('CREATE INDEX ON %s (incident_id, revision) WHERE incident_id IS NOT NULL', partition);
    EXECUTE format('CREATE INDEX ON %s (cause, revision)', partition);
    EXECUTE format('CREATE INDEX ON %s (to_claw_identifier, revision)', partition);
    EXECUTE format('CREATE INDEX ON %s (from_claw_identifier, revision) WHERE to_claw_identifier IS DISTINCT FROM from_claw_identifier', partition);
  END LOOP;
END
$$;

CREATE INDEX agent_transitions_incident_id_idx ON agent_transitions (incident_id, revision) WHERE incident_id IS NOT NULL;
CREATE INDEX agent_transitions_cause_idx ON agent_transitions (cause, revision);
CREATE INDEX agent_transitions_to_claw_idx ON agent_transitions (to_claw_identifier, revision);
CREATE INDEX agent_transitions_left_claw_idx ON agent_transitions (from_claw_identifier, revision)
  WHERE to_claw_identifier IS DISTINCT FROM from_claw_identifier;

-- The incidents of earlier releases. The aggregates read the index on incidents.
INSERT INTO incidents (incident_id, claw_identifier, since, after_revision)
SELECT t.incident_id, min(t.from_claw_identifier), min(t.occurred_at), min(t.revision) - 1
FROM agent_transitions t WHERE t.incident_id IS NOT NULL GROUP BY t.incident_id ORDER BY min(t.revision);
