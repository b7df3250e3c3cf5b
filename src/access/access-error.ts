/** A configured source of credentials is not usable. Its message is for the operator. */
export class AccessError extends Error {
  override readonly name = "AccessError";
}
