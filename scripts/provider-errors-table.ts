import { join } from "node:path";
import * as fields from "../packages/client/src/provider/error-fields.ts";
import { ERROR_KINDS } from "../packages/client/src/provider/error-kinds.ts";
import {
  BUDGETS,
  DATE_ZONES,
  WAIT_FIELDS,
  WAIT_FILLERS,
  WAIT_HEADERS,
  WAIT_PHRASES,
} from "../packages/client/src/provider/wait-sources.ts";
import { root } from "./run-tool.ts";

export const PROVIDER_ERRORS_FILE = join(root, "packages/client/provider-errors.json");

/** The tables by which the client library reads the errors of model providers, for libraries in other languages. */
export function printProviderErrors(): string {
  const tables = {
    fields: {
      inner: fields.INNER_FIELDS,
      statuses: fields.STATUS_FIELDS,
      names: fields.NAME_FIELDS,
      messages: fields.MESSAGE_FIELDS,
      headers: fields.HEADER_FIELDS,
      nameHeaders: fields.NAME_HEADERS,
      headerPrefixes: fields.HEADER_PREFIXES,
    },
    kinds: ERROR_KINDS,
    waits: {
      fields: WAIT_FIELDS,
      headers: WAIT_HEADERS,
      budgets: BUDGETS,
      phrases: WAIT_PHRASES,
      fillers: WAIT_FILLERS,
      dateZones: DATE_ZONES,
    },
  };
  return `${JSON.stringify(tables, null, 2)}\n`;
}
