-- One change of one agent, as the service judged it. Members that the change does not touch say so ('keep').
CREATE TYPE agent_change AS (
  n integer,
  -- 'create', 'update' or 'delete'
  kind text,
  id bigint,
  -- The change applies only to what it was judged by, and only once the time is ripe.
  expect_revision bigint,
  expect_epoch bigint,
  lease_ended boolean,
  not_before timestamptz,
  -- No transition: nothing is logged and no revision given.
  quiet boolean,
  cause text,
  actor text,
  request_id text,
  fingerprint text,
  incident_id text,
  status text,
  claw_identifier text,
  -- 'keep', 'clear', 'set'
  exhaustion text,
  exhaust_reason text,
  keep_exhausted_at boolean,
  recovery_at timestamptz,
  recovery_after_ms bigint,
  backoff_steps smallint,
  -- 'keep', 'clear', 'set' (hold_ms null: until the recovery)
  hold text,
  hold_ms bigint,
  -- 'keep', 'end', 'grant'
  lease text,
  lease_ms bigint,
  heartbeat boolean,
  -- Null: stays.
  held boolean,
  new_epoch boolean,
  -- For 'create'.
  user_id bigint,
  agent_id text,
  username text,
  email text,
  display_name text,
  -- For 'delete': the user goes, too.
  delete_user boolean
);

CREATE FUNCTION micros_of(moment timestamptz) RETURNS bigint LANGUAGE sql IMMUTABLE
RETURN (extract(epoch FROM moment) * 1000000)::bigint;

-- More than a fifth of the claws, and at least three: then the fault is more likely the service's than theirs.
CREATE FUNCTION is_mass_silence(silent bigint, claws bigint) RETURNS boolean LANGUAGE sql IMMUTABLE
RETURN silent >= 3 AND silent * 5 > greatest(silent, claws);

-- Takes a request_id for this transaction, one whose time is over like a new one. False: it was taken before. Waits for
-- another transaction that is taking it.
CREATE FUNCTION claim_request_id(id text, content text) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  INSERT INTO request_ids (request_id, fingerprint) VALUES (id, content)
  ON CONFLICT (request_id) DO UPDATE SET fingerprint = excluded.fingerprint, agent_state = NULL, user_state = NULL,
    revision = NULL, created_at = clock_timestamp()
  WHERE request_ids.created_at <= clock_timestamp() - interval '24 hours';
  RETURN FOUND;
END
$$;

-- Judges leases that have ended, their rows locked: which must not end yet, until when (microseconds since 1970, by n),
-- and which end with a claw that is silent as a whole (its incident, and whether this group is the first to say so).
CREATE FUNCTION judge_lease_ends(members agent_change[], ending integer[], moment timestamptz, OUT guarded jsonb, OUT incidents jsonb)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
  fleet fleet_state;
  free integer[];
  recent bigint;
  tokens double precision;
  used bigint;
  ask_every interval;
  first_ask timestamptz;
BEGIN
  guarded := '{}';
  incidents := '{}';
  -- Whoever ends leases does so one after the other: they share one measure and one bucket.
  SELECT * INTO fleet FROM fleet_state FOR UPDATE;

  SELECT coalesce(jsonb_object_agg(c.n, micros_of(greatest(g.until, fleet.no_lease_ends_before))), '{}') INTO guarded
  FROM unnest(members) c JOIN agent_liveness l ON l.agent = c.id LEFT JOIN lease_guards g ON g.replica_id = l.replica_id
  WHERE c.n = ANY (ending) AND greatest(g.until, fleet.no_lease_ends_before) > moment;

  SELECT coalesce(array_agg(e.n), '{}') INTO free FROM unnest(ending) e (n) WHERE NOT guarded ? e.n::text;
  IF free = '{}' THEN RETURN; END IF;

  -- Silent is a claw of which no agent has been heard for two intervals: all its leases end within the third.
  -- Each claw is looked at once, however many of its agents are in the group.
  WITH ended AS MATERIALIZED (
    SELECT a.claw_identifier, max(e.lease_expires_at) AS ends
    FROM unnest(members) c JOIN agents a ON a.id = c.id JOIN agent_liveness e ON e.agent = c.id
    WHERE c.n = ANY (free) GROUP BY a.claw_identifier
  ), silent AS (
    SELECT e.claw_identifier, e.ends FROM ended e
    WHERE NOT EXISTS (
      SELECT FROM agents o JOIN agent_liveness l ON l.agent = o.id
      WHERE o.claw_identifier = e.claw_identifier AND l.lease_expires_at > moment + fleet.interval_ms * interval '1 millisecond'
    )
    ORDER BY e.claw_identifier
  ), noted AS (
    INSERT INTO claw_incidents AS i (claw_identifier, incident_id, began_at, last_at, ended_at)
    SELECT s.claw_identifier, coalesce(k.incident_id, gen_random_uuid()::text), coalesce(k.began_at, moment), moment, k.ended_at
    -- What was heard after the last end has a lease that ends a lease after that, or later: else the same event goes on,
    -- also where a brake or a guard has held it back for long.
    FROM silent s LEFT JOIN claw_incidents k ON k.claw_identifier = s.claw_identifier
      AND k.last_at >= s.ends - fleet.lease_ms * interval '1 millisecond'
    ON CONFLICT (claw_identifier) DO UPDATE SET incident_id = excluded.incident_id, began_at = excluded.began_at,
      last_at = excluded.last_at, ended_at = excluded.ended_at
    RETURNING i.claw_identifier, i.incident_id, i.ended_at
  )
  SELECT coalesce(jsonb_object_agg(c.n, jsonb_build_object('id', s.incident_id, 'new', s.ended_at IS NULL)), '{}') INTO incidents
  FROM unnest(members) c JOIN agents a ON a.id = c.id JOIN noted s ON s.claw_identifier = a.claw_identifier WHERE c.n = ANY (free);

  SELECT count(*) INTO recent FROM claw_incidents i WHERE i.began_at > moment - fleet.lease_ms * interval '1 millisecond';
  IF fleet.brake_engaged_at IS NULL AND is_mass_silence(recent, fleet.claws) THEN
    fleet.brake_engaged_at := moment;
    -- Counted now: the census is some seconds old, and by a rate that is too low the first of them would wait for too long.
    SELECT count(*) / (4 * fleet.lease_ms / 1000.0) INTO fleet.brake_rate FROM agent_liveness l WHERE l.lease_expires_at IS NOT NULL;
    fleet.brake_tokens := 0;
    fleet.brake_filled_at := moment;
    fleet.brake_held_back := 0;
    fleet.brake_next_ask := moment;
  END IF;

  IF fleet.brake_engaged_at IS NOT NULL THEN
    -- All that is there, gone, takes four leases; with the lease that had to end first, that is within six. Of a fleet
    -- that grows meanwhile, too.
    fleet.brake_rate := greatest(fleet.brake_rate, greatest(fleet.agents, cardinality(free)) / (4 * fleet.lease_ms / 1000.0));
    -- Each that is held back is told its own moment to ask again, one after the other over all replicas: so all of them
    -- together ask twice as often as the bucket lets go, however many they are. Less would leave tokens unused.
    ask_every := interval '1 second' / (2 * fleet.brake_rate);
    -- A second's worth at most is saved up; two where that is less, or one would be lost whenever somebody asks late.
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

  UPDATE claw_incidents i SET ended_at = moment
  FROM unnest(members) c JOIN agents a ON a.id = c.id
  WHERE i.claw_identifier = a.claw_identifier AND i.ended_at IS NULL AND incidents ? c.n::text AND NOT guarded ? c.n::text;
END
$$;

-- Commits a group of changes of different agents, in one round trip: whoever held the counter between two of them
-- would stop every replica if it froze. VOLATILE, so that each statement sees what was committed before its locks.
-- Locks are taken in the one order there is: liveness rows by id, agent rows by id, the fleet, request ids, names, the
-- counter. Where two groups meet all the same (a name of one is the agent_id of the other), one is repeated.
-- Outcomes: 'committed' (detail names a claw that fell silent by it); 'stale' (judge again); 'conflict' (detail names the
-- constraint); 'guarded' (the lease must not end yet; detail says when to ask again, in microseconds since 1970).
CREATE FUNCTION commit_changes(replica integer, changes jsonb)
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
  guarded jsonb := '{}';
  incidents jsonb := '{}';
BEGIN
  SELECT array_agg(c), array_agg(c.id) FILTER (WHERE c.id IS NOT NULL)
  INTO members, ids FROM jsonb_populate_recordset(NULL::agent_change, changes) c;

  PERFORM FROM agent_liveness l WHERE l.agent = ANY (ids) ORDER BY l.agent FOR UPDATE;
  PERFORM FROM agents a WHERE a.id = ANY (ids) ORDER BY a.id FOR UPDATE;

  moment := clock_timestamp();
  SELECT coalesce(array_agg(c.n), '{}') INTO fit
  FROM unnest(members) c JOIN agent_liveness l ON l.agent = c.id
  WHERE l.revision = c.expect_revision
    AND (c.expect_epoch IS NULL OR l.epoch = c.expect_epoch)
    AND (NOT coalesce(c.lease_ended, false) OR l.lease_expires_at <= moment)
    AND (c.not_before IS NULL OR c.not_before <= moment);

  -- Leases that have ended by themselves: not while nobody listened, and not all at once in a mass silence.
  SELECT array_agg(c.n) INTO ending FROM unnest(members) c WHERE c.n = ANY (fit) AND c.lease_ended;
  IF ending IS NOT NULL THEN
    SELECT j.guarded, j.incidents INTO guarded, incidents FROM judge_lease_ends(members, ending, moment) j;
    SELECT coalesce(array_agg(f.n), '{}') INTO fit FROM unnest(fit) f (n) WHERE NOT guarded ? f.n::text;
  END IF;

  -- A request that another replica, or another member, is answering at this moment: judged again, it will find that answer.
  WITH asked AS MATERIALIZED (
    SELECT c.n, c.request_id, c.fingerprint FROM unnest(members) c WHERE c.n = ANY (fit) ORDER BY c.request_id, c.n
  )
  SELECT coalesce(array_agg(a.n), '{}') INTO fit FROM asked a
  WHERE a.request_id IS NULL OR claim_request_id(a.request_id, a.fingerprint);

  FOR place IN
    -- By names: two groups that make the same users would wait for each other in a circle.
    SELECT p FROM generate_subscripts(members, 1) p WHERE members[p].kind = 'create' ORDER BY members[p].username, members[p].agent_id
  LOOP
    DECLARE
      c agent_change := members[place];
    BEGIN
      CONTINUE WHEN c.request_id IS NOT NULL AND NOT claim_request_id(c.request_id, c.fingerprint);
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
      -- From the first revision that is given now: a group may begin in one partition and end in the next.
      counter.partitioned_until := add_transition_partitions(counter.revision + 1);
    END IF;
    UPDATE revision_counter SET revision = counter.revision + transitions, partitioned_until = counter.partitioned_until;
    -- After the counter, so that times ascend with revisions.
    moment := clock_timestamp();
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
      f.hold, f.hold_ms, b.hold_revision, b.hold_until
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
        WHEN 'set' THEN coalesce(moment + a.hold_ms * interval '1 millisecond', a.recovery_at) END
    FROM after a WHERE agents.id = a.id AND a.kind <> 'delete' AND (NOT a.quiet OR a.hold <> 'keep')
    RETURNING agents.*
  ), kept_alive AS (
    UPDATE agent_liveness l SET revision = coalesce(a.given, l.revision),
      last_heartbeat = CASE WHEN a.heartbeat THEN moment ELSE l.last_heartbeat END,
      lease_expires_at = CASE a.lease WHEN 'keep' THEN l.lease_expires_at
        WHEN 'grant' THEN moment + a.lease_ms * interval '1 millisecond' END,
      held = coalesce(a.held, l.held),
      epoch = CASE WHEN a.new_epoch THEN nextval('agent_epochs') ELSE l.epoch END,
      -- Whoever ends a session or brings an agent back watches its lease.
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

  -- Most groups have none: comparing each member with all that fit would take a tenth of the group's time.
  IF cardinality(fit) < cardinality(members) THEN
    RETURN QUERY
    SELECT c.n, 'stale', NULL::text, NULL::bigint, NULL::agent_states, NULL::user_states
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
    WHERE r.request_id = c.request_id AND c.n = ANY (fit) AND c.kind <> 'delete';
    UPDATE request_ids r SET revision = t.revision
    FROM unnest(members) c JOIN agent_transitions t ON t.agent = c.id AND t.revision > counter.revision
    WHERE r.request_id = c.request_id AND c.n = ANY (fit) AND c.kind = 'delete';
  END IF;
END
$$;
