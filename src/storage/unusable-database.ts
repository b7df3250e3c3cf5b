/** The service cannot use this database, however often it tries. The message is for the operator. */
export class UnusableDatabase extends Error {
  override readonly name = "UnusableDatabase";
}
