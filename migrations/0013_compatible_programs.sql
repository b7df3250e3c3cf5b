-- Which programs may use this schema. A program that does not know all migrations of a database reads it at its start. Each
-- later migration sets compatible_from (a test checks it):
--
--   UPDATE schema_compatibility SET compatible_from = '0.2.0';
CREATE TABLE schema_compatibility (
  singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
  -- The meaning of this table: a program must know the number, or it must not use the database.
  format integer NOT NULL,
  -- The oldest version that may use the database.
  compatible_from text COLLATE "C" NOT NULL,
  CONSTRAINT schema_compatibility_version CHECK (compatible_from ~ '^[0-9]{1,6}[.][0-9]{1,6}[.][0-9]{1,6}$')
);

INSERT INTO schema_compatibility (format, compatible_from) VALUES (1, '0.2.0');
