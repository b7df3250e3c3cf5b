/** The schema of a database: which migrations it has, and which programs it allows. */
export interface Schema {
  /** The names of its migrations. */
  readonly applied: readonly string[];
  /** Null: it is older than the table of this. */
  readonly allows: { readonly format: number; readonly compatibleFrom: string } | null;
}

/** What a program knows of schemas. */
export interface SchemaKnowledge {
  /** Its version, such as `1.2.3`. A pre-release counts as its release. */
  readonly version: string;
  /** The names of its migrations. */
  readonly migrations: readonly string[];
}

/** A schema that a newer version made, and that this program may use. */
export interface NewerSchema {
  /** The migrations that this program does not know. */
  readonly unknown: readonly string[];
  readonly compatibleFrom: string;
}

export interface UsableSchema {
  /** The migrations of this program that the database lacks. */
  readonly missing: readonly string[];
  /** Null: the program knows all migrations of the database. */
  readonly newer: NewerSchema | null;
}

/** The format of `schema_compatibility` that this program knows. */
export const SCHEMA_FORMAT = 1;

/**
 * Judges whether a program may use a database. A program that knows all migrations of the database may always use it, whatever
 * its version, such as that of a checkout before a release.
 *
 * @returns a sentence for the operator if the program must not use the database
 */
export function judgeSchema({ applied, allows }: Schema, program: SchemaKnowledge): UsableSchema | string {
  const unknown = applied.filter((name) => !program.migrations.includes(name));
  const missing = program.migrations.filter((name) => !applied.includes(name));
  if (unknown.length === 0) return { missing, newer: null };
  const what = `The database was migrated by a newer version of this service (it has ${unknown.join(", ")})`;
  if (allows === null) return `${what}. Start that version, or set DATABASE_URL to another database.`;
  const { format, compatibleFrom } = allows;
  if (format !== SCHEMA_FORMAT)
    return `${what}, with the format ${format}. Version ${program.version} knows only the format ${SCHEMA_FORMAT}: start a newer version.`;
  if (isOlder(program.version, compatibleFrom))
    return `${what}, and needs at least version ${compatibleFrom}. This is ${program.version}: start version ${compatibleFrom} or a newer one.`;
  if (missing.length > 0)
    return `The database has migrations that this version does not know (${unknown.join(", ")}), and lacks others (${missing.join(", ")}): start the version that migrated it.`;
  return { missing, newer: { unknown, compatibleFrom } };
}

/** Whether a version is older than another one. Versions that cannot be read are older. */
function isOlder(version: string, than: string): boolean {
  const numbers = numbersOf(version);
  const others = numbersOf(than);
  if (numbers === undefined || others === undefined) return true;
  for (const [index, number] of numbers.entries()) {
    const other = others[index] ?? 0;
    if (number !== other) return number < other;
  }
  return false;
}

function numbersOf(version: string): number[] | undefined {
  const found = /^(\d{1,6})\.(\d{1,6})\.(\d{1,6})(?![\d.])/.exec(version);
  return found?.slice(1).map(Number);
}
