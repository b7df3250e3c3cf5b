const PATTERN =
  /(?:^(?:[a-z][a-z_. ]{0,40}(?:error|exception):? )?|\b(?:status|status was|status code|status_code|error|error code|http|http\/[\d.]{1,3}|code|api error)[ :=]{0,3}|[([])([45]\d\d)(?![\w.,]\d|\w)/gi;
/** Of one message. */
const LONGEST_BEGINNING = 2_048;
const MOST_STATUSES = 8;

/** HTTP statuses that messages name: `429 Too Many Requests`, `status code 429`, `Error code: 429`, `(429)`. */
export function statedIn(messages: readonly string[]): ReadonlySet<number> {
  const stated = new Set<number>();
  for (const message of messages) {
    let count = 0;
    for (const [, status] of message.slice(0, LONGEST_BEGINNING).matchAll(PATTERN)) {
      stated.add(Number(status));
      count += 1;
      if (count >= MOST_STATUSES) break;
    }
  }
  return stated;
}
