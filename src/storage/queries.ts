import { readFileSync } from "node:fs";

const namesByText = new Map<string, string>();

/**
 * A named query from its own file. PostgreSQL parses and plans a named query once for each connection.
 *
 * @param name the file in `queries/` without its extension
 */
export function namedQuery(name: string): { readonly name: string; readonly text: string } {
  const text = readFileSync(new URL(`queries/${name}.sql`, import.meta.url), "utf8");
  namesByText.set(text, name);
  return Object.freeze({ name, text });
}

/** The commands of statements that have no file. */
const COMMANDS: ReadonlySet<string> = new Set(["select", "insert", "update", "delete", "with", "begin", "commit"]);

/**
 * A short name of a statement, for metrics and traces. There are only as many as files in `queries/`, and some more for the
 * statements of Objection and of transactions. It contains no SQL.
 */
export function statementName(statement: unknown): string {
  const text = textOf(statement);
  const known = namesByText.get(text);
  if (known !== undefined) return known;
  const command = /^\s*([a-z]+)/i.exec(text)?.[1]?.toLowerCase() ?? "";
  return COMMANDS.has(command) ? `other_${command}` : "other";
}

function textOf(statement: unknown): string {
  if (typeof statement === "string") return statement;
  if (typeof statement !== "object" || statement === null || !("text" in statement)) return "";
  return typeof statement.text === "string" ? statement.text : "";
}
