-- Whether a replica is isolated: it has not refreshed its row for longer than deaf_after_ms, or another replica has
-- adopted it.
CREATE FUNCTION is_isolated(r replicas) RETURNS boolean LANGUAGE sql VOLATILE
RETURN r.adopted_by IS NOT NULL OR r.seen_at < clock_timestamp() - r.deaf_after_ms * interval '1 millisecond';

-- The guard of each replica: no lease of its agents expires before it. The watcher of a replica is the replica itself
-- or, once it is adopted, its adopter. A guard counts only if the watcher was not isolated until the guard ended. If
-- the watcher has not refreshed its row since, it may be isolated: ask again after its next refresh, which may set
-- another guard. The same holds for a watcher that is isolated or has no row.
CREATE OR REPLACE VIEW lease_guards AS
SELECT
  r.id AS replica_id,
  CASE
    WHEN w.id IS NULL OR is_isolated(w) THEN greatest(g.until, clock_timestamp() + r.deaf_after_ms * interval '1 millisecond')
    -- A replica refreshes its row four times in deaf_after_ms, and at least each second: ask again when the next
    -- refresh is due.
    WHEN w.seen_at < g.until AND g.until <= clock_timestamp() THEN greatest(
      w.seen_at + least(w.deaf_after_ms / 4, 1000) * interval '1 millisecond',
      clock_timestamp() + w.deaf_after_ms / 20 * interval '1 millisecond'
    )
    ELSE g.until
  END AS until
FROM replicas r
  LEFT JOIN replicas w ON w.id = coalesce(r.adopted_by, r.id)
  CROSS JOIN fleet_state f
  CROSS JOIN LATERAL (SELECT greatest(r.no_lease_ends_before, w.no_lease_ends_before, f.no_lease_ends_before) AS until) g;

-- The guard of agents whose replica has no row: when to ask again while all replicas are isolated. Null: at least one
-- is not isolated.
CREATE FUNCTION unnoticed_fleet_guard() RETURNS timestamptz LANGUAGE sql VOLATILE
RETURN CASE WHEN NOT EXISTS (SELECT FROM replicas r WHERE NOT is_isolated(r)) THEN
  clock_timestamp() + (SELECT coalesce(max(r.deaf_after_ms), 1000) FROM replicas r) * interval '1 millisecond'
END;

-- How much longer the lease of this agent is than the fleet's, which a guard adds. The last heartbeat granted the
-- lease, or a later move or creation, which grant a first lease. The limit of an hour, the longest lease, applies if
-- another transition followed the move.
CREATE FUNCTION longer_lease(l agent_liveness, fleet_lease interval) RETURNS interval LANGUAGE sql VOLATILE
RETURN greatest(interval '0', least(interval '1 hour', l.lease_expires_at - greatest(
  l.last_heartbeat,
  (SELECT t.occurred_at FROM agent_transitions t WHERE t.revision = l.revision AND t.cause IN ('created', 'moved'))
)) - fleet_lease);

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
  -- third. Each claw is checked once, however many of its agents are in the group.
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
    -- A heartbeat after the last expiry gives a lease that ends at least one lease later. Otherwise the same incident
    -- continues, even if a brake or a guard delayed it for long.
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

  UPDATE claw_incidents i SET ended_at = moment
  FROM unnest(members) c JOIN agents a ON a.id = c.id
  WHERE i.claw_identifier = a.claw_identifier AND i.ended_at IS NULL AND incidents ? c.n::text AND NOT guarded ? c.n::text;
END
$$;
