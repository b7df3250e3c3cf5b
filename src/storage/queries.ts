import { readFileSync } from "node:fs";

/**
 * A named query from its own file. PostgreSQL parses and plans a named query once for each connection.
 *
 * @param name the file in `queries/` without its extension
 */
export function namedQuery(name: string): { readonly name: string; readonly text: string } {
  return Object.freeze({ name, text: readFileSync(new URL(`queries/${name}.sql`, import.meta.url), "utf8") });
}
