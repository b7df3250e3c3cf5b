/** What callers are to be checked by cannot be had. Its message is for the person who started the service. */
export class AccessError extends Error {
  override readonly name = "AccessError";
}
