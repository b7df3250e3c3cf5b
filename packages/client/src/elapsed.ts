/** A moment by both clocks. */
export interface Moment {
  readonly wall: number;
  readonly steady: number;
}

export function currentMoment(): Moment {
  return { wall: Date.now(), steady: performance.now() };
}

/**
 * The milliseconds since a moment by the clock that counted more. The steady clock stands still while a machine sleeps,
 * the wall clock may be set back: each alone can miss hours.
 */
export function msSince({ wall, steady }: Moment): number {
  return Math.max(Date.now() - wall, performance.now() - steady);
}
