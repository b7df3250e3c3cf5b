-- The functions of this service find its tables in its schema, whatever the search path of their session is: an operator
-- who calls take_counter() in psql, and a session whose role, database or pooler sets another path. A later migration that
-- creates or replaces a function has to set the path of that function, too (a test checks it).
DO $$
DECLARE
  function_name regprocedure;
BEGIN
  FOR function_name IN
    SELECT p.oid FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
    WHERE p.pronamespace = current_schema()::regnamespace
      -- The others were parsed when they were created.
      AND p.prosqlbody IS NULL AND l.lanname IN ('sql', 'plpgsql')
      AND pg_has_role(p.proowner, 'USAGE')
      AND NOT EXISTS (
        SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
      )
  LOOP
    EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', function_name, current_schema());
  END LOOP;
END
$$;
