-- Identifies the history that the revisions belong to, by the place of the database and the writer of this row. Each
-- way to bring an older state back changes at least one of the values that these columns are compared with. A restart
-- of the server changes one as well. If nothing was lost, the revision gap that follows costs nothing: no watcher's
-- position is strictly within it.
CREATE TABLE revision_history (
  singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
  -- The transaction that wrote this row. After a dump and restore, or a copy, xmin has another value.
  written_by xid8,
  -- The database. A copy (CREATE DATABASE ... TEMPLATE) has another oid.
  database_oid oid,
  -- The transaction that last created, renamed or altered the database. An oid can be chosen, and databases can be
  -- swapped by renaming.
  database_written_by xid,
  -- The start of the server. Restoring a disk, data folder or backup, and promoting a standby, needs a start.
  server_started_at timestamptz
) WITH (fillfactor = 10);

-- All null: the database may have been restored before this migration. A revision gap follows.
INSERT INTO revision_history DEFAULT VALUES;

-- The cause of the gap: a result of history_break(), 'revision_seen' (a replica saw a larger revision) or 'declared'
-- (by an operator). Null: from before this migration.
ALTER TABLE revision_jumps ADD COLUMN reason text COLLATE "C";

-- Whether the server is another one than at the last gap, or was promoted since. False if the provider denies the
-- query.
CREATE FUNCTION is_another_server() RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
  RETURN (
    SELECT c.timeline <> current_timeline() OR c.system_identifier <> (SELECT s.system_identifier FROM pg_control_system() s)
    FROM revision_counter c
  );
EXCEPTION WHEN OTHERS THEN
  RETURN false;
END
$$;

-- Why the database may have lost the history of the newest revision. Null: it has not. 'server_started' alone nearly
-- always means a restart, which lost nothing; a restored disk or data folder looks the same.
CREATE FUNCTION history_break() RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE
  reason text;
BEGIN
  SELECT CASE
      WHEN num_nulls(h.written_by, h.database_oid, h.database_written_by, h.server_started_at) > 0 THEN 'unknown'
      WHEN h.xmin <> h.written_by::xid THEN 'row_copied'
      WHEN h.database_oid <> d.oid THEN 'another_database'
      WHEN h.database_written_by <> d.xmin THEN 'database_altered'
      WHEN h.server_started_at <> pg_postmaster_start_time() THEN
        CASE WHEN is_another_server() THEN 'another_server' ELSE 'server_started' END
    END INTO reason
  FROM revision_history h, pg_database d WHERE d.datname = current_database();
  IF NOT FOUND THEN RETURN 'unknown'; END IF;
  RETURN reason;
END
$$;

-- A name of the history, for processes that cache rows of the database: if it changes, they read the rows again.
CREATE FUNCTION history_name() RETURNS text LANGUAGE sql STABLE AS $$
  SELECT concat_ws('/', extract(epoch FROM pg_postmaster_start_time()), d.oid, d.xmin, h.xmin)
  FROM pg_database d LEFT JOIN revision_history h ON true WHERE d.datname = current_database()
$$;

-- Records the current state of the database as that of the history of the next revision.
CREATE FUNCTION note_history() RETURNS void LANGUAGE sql VOLATILE AS $$
  INSERT INTO revision_history (written_by, database_oid, database_written_by, server_started_at)
  SELECT pg_current_xact_id(), d.oid, d.xmin, pg_postmaster_start_time() FROM pg_database d WHERE d.datname = current_database()
  ON CONFLICT (singleton) DO UPDATE SET written_by = excluded.written_by, database_oid = excluded.database_oid,
    database_written_by = excluded.database_written_by, server_started_at = excluded.server_started_at
$$;

-- A random distance, up to 2^36 (about 19 hours of revision_of_this_moment).
CREATE FUNCTION random_revision_distance() RETURNS bigint LANGUAGE sql VOLATILE
RETURN 1 + floor(random() * 68719476736)::bigint;

-- A revision larger than `last`, and larger than all that another history from the same state can have assigned. If the
-- clock is ahead of `last`, the clock gives it. Otherwise (the clock is or was wrong) a random distance separates the
-- two histories: a fixed one would lead both to the same revision.
CREATE FUNCTION revision_beyond(last bigint) RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  now_revision CONSTANT bigint := revision_of_this_moment();
BEGIN
  RETURN CASE WHEN now_revision > last THEN now_revision ELSE last + random_revision_distance() END;
END
$$;

-- Ends the history at `counter`, whose row is locked, and begins one beyond `seen`. Returns the new counter.
CREATE FUNCTION begin_history(counter revision_counter, seen bigint, reason text) RETURNS revision_counter
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  gap_end CONSTANT bigint := revision_beyond(greatest(counter.revision, seen));
  -- Seconds since 2024: fewer than one replica starts in a second on average. The column is an integer, which is enough
  -- until 2092.
  replicas_from CONSTANT bigint := least(2147000000,
    greatest((SELECT last_value FROM replicas_id_seq) + 1000, extract(epoch FROM clock_timestamp())::bigint - 1704067200));
BEGIN
  INSERT INTO revision_jumps (from_revision, to_revision, occurred_at, reason)
  VALUES (counter.revision, gap_end, clock_timestamp(), reason);
  -- The previous release compares these two. Some providers deny the query.
  BEGIN
    counter.timeline := current_timeline();
    counter.system_identifier := (SELECT s.system_identifier FROM pg_control_system() s);
  EXCEPTION WHEN OTHERS THEN
    NULL;
  END;
  UPDATE revision_counter SET revision = gap_end, partitioned_until = add_transition_partitions(gap_end + 1),
    timeline = counter.timeline, system_identifier = counter.system_identifier
  RETURNING * INTO counter;
  PERFORM note_history();
  -- The lost history also assigned epochs and numbers of replicas, which streams and replicas may still use.
  IF nextval('agent_epochs') < gap_end THEN PERFORM setval('agent_epochs', gap_end); END IF;
  IF (SELECT last_value FROM replicas_id_seq) < replicas_from THEN PERFORM setval('replicas_id_seq', replicas_from); END IF;
  RETURN counter;
END
$$;

-- Locks the counter until the commit. If the history of the newest revision may be lost, it first begins a new history,
-- beyond all revisions that the lost one can have assigned, and beyond `seen`, a revision that a replica saw. It
-- records the gap.
CREATE OR REPLACE FUNCTION take_counter(seen bigint DEFAULT 0) RETURNS revision_counter LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  counter revision_counter;
  reason text;
BEGIN
  SELECT * INTO counter FROM revision_counter FOR UPDATE;
  -- Check it after the lock, because the former holder may have recorded the history.
  reason := coalesce(history_break(), CASE WHEN counter.revision < seen THEN 'revision_seen' END);
  IF reason IS NULL THEN RETURN counter; END IF;
  RETURN begin_history(counter, seen, reason);
END
$$;

-- For operators, if they brought back an older state that history_break cannot detect. The new history begins a day
-- ahead of the clock, because the clock of the lost history may have been ahead.
CREATE FUNCTION declare_new_history() RETURNS revision_jumps LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  counter revision_counter;
  gap revision_jumps;
BEGIN
  SELECT * INTO counter FROM revision_counter FOR UPDATE;
  counter := begin_history(counter, revision_of_this_moment() + 86400000 * 1024::bigint, 'declared');
  SELECT * INTO gap FROM revision_jumps j WHERE j.to_revision = counter.revision;
  RETURN gap;
END
$$;
