/** A moment, by the wall clock and the monotonic clock. */
export interface Moment {
  readonly wall: number;
  readonly steady: number;
}

export function currentMoment(): Moment {
  return { wall: Date.now(), steady: performance.now() };
}

/**
 * The milliseconds since a moment, by the clock that advanced more. The monotonic clock can stop while a machine sleeps, and the
 * wall clock can be set back: each alone can miss hours.
 */
export function msSince({ wall, steady }: Moment): number {
  return Math.max(Date.now() - wall, performance.now() - steady);
}
