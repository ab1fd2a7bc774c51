/** A clock that does not jump, and that goes on while the host sleeps as far as Node has one. */

import { uptime } from "node:os";

/** A wall clock further from the steady one than it was says that something happened. */
const JUMP_MS = 20;
/** The host's uptime is told in hundredths of a second. */
const UPTIME_MS = 50;

/**
 * Tell elapsed time in milliseconds.
 *
 * Shape: Node's own steady clock stands still while the host sleeps; the wall clock does not. Where
 * the two drift apart, the host slept or somebody set the wall clock, and the host's uptime, which
 * is slower to read, tells which.
 */
export class SteadyClock {
  private apartMs = Date.now() - performance.now();
  private readonly uptimeApartMs = uptime() * 1000 - performance.now();
  private sleptMs = 0;

  now(): number {
    const awakeMs = performance.now();
    const apartMs = Date.now() - awakeMs;
    if (Math.abs(apartMs - this.apartMs) > JUMP_MS) {
      this.apartMs = apartMs;
      const sleptMs = uptime() * 1000 - awakeMs - this.uptimeApartMs;
      if (sleptMs > this.sleptMs + UPTIME_MS) this.sleptMs = sleptMs;
    }
    return awakeMs + this.sleptMs;
  }
}
