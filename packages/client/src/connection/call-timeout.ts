/** The default of `timeoutMs`, in milliseconds: the deadline that the service gives a call without one. */
export const CALL_TIMEOUT_MS = 10_000;

/** @throws RangeError unless `timeoutMs` is 0, or 1 to 2,147,483,647 */
export function checkTimeout(timeoutMs: number): number {
  if (timeoutMs === 0 || (timeoutMs >= 1 && timeoutMs <= 0x7fff_ffff)) return timeoutMs;
  throw new RangeError(
    `timeoutMs: ${timeoutMs} is out of range. Give milliseconds from 1 to 2147483647, or 0 for no limit.`,
  );
}
