// Writes packages/client/provider-errors.json from the tables of the client library.
import { writeFile } from "node:fs/promises";
import { PROVIDER_ERRORS_FILE, printProviderErrors } from "./provider-errors-table.ts";

await writeFile(PROVIDER_ERRORS_FILE, printProviderErrors());
