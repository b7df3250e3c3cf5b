/** The environment variable that marks a process: the ids of all owners that end it, the innermost last. */
export const OWNER_VARIABLE = "TEST_PROCESS_OWNER";

/** The messages of a process to its owner: a started process, a folder, databases of another server. */
export type Owned =
  | { readonly process: number }
  | { readonly folder: string }
  | { readonly databases: { readonly adminUrl: string; readonly prefix: string } };
