const LONGEST = 128;

/**
 * Rejects a name that the service would reject as an `agent_id`, a claw or an instance, so that the caller sees it.
 *
 * @throws RangeError unless it has 1 to 128 code points, none of them a control character or half a surrogate pair
 */
export function checkName(what: string, name: string): void {
  const codePoints = Array.from(name.slice(0, 2 * LONGEST + 1)).length;
  if (codePoints === 0 || codePoints > LONGEST) throw new RangeError(`${what} must have 1 to ${LONGEST} characters`);
  if (/\p{Cc}/u.test(name)) throw new RangeError(`${what} must not hold control characters`);
  if (!name.isWellFormed()) throw new RangeError(`${what} must be valid Unicode, without lone surrogates`);
}
