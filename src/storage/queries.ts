import { readFileSync } from "node:fs";

/**
 * A named query from its own file. Named, so that each connection parses and plans it once.
 *
 * @param name the file in `queries/` without its ending
 */
export function namedQuery(name: string): { readonly name: string; readonly text: string } {
  return Object.freeze({ name, text: readFileSync(new URL(`queries/${name}.sql`, import.meta.url), "utf8") });
}
