/** The stream to the daemon: the only part of allowances with a socket and timers. */

import { status } from "@grpc/grpc-js";
import type { Drawn, End } from "./drawn.js";
import { OutboxFull, ReservationNotFound } from "./errors.js";
import type { Facts } from "./facts.js";
import type { Log } from "./outbox.js";
import type { DaemonMessage } from "./pb/costd/v1/admission.js";
import type { Amounts } from "./requests.js";
import { Session } from "./session.js";
import type { Stream } from "./transport.js";

const WAIT_MS_FIRST = 100;
const WAIT_MS_MAX = 5_000;
/** When to try a daemon again that knows no allowances, or will not talk of them. */
const REFUSED_WAIT_MS = 60_000;
/** How long a stream stays open with nothing held and nothing to say; it keeps the program alive. */
const IDLE_MS = 1_000;

const REFUSALS: ReadonlySet<number> = new Set([
  status.UNIMPLEMENTED,
  status.PERMISSION_DENIED,
  status.UNAUTHENTICATED,
  status.INVALID_ARGUMENT,
]);

/** One client's session, and what keeps its stream. */
export class Attached {
  readonly session: Session;
  private stream: Stream | undefined;
  private timer: NodeJS.Timeout | undefined;
  private timerMs = Number.POSITIVE_INFINITY;
  private isPolling = false;
  private reopening: NodeJS.Timeout | undefined;
  private idle: NodeJS.Timeout | undefined;
  private waitMs = WAIT_MS_FIRST;
  private restsUntilMs = Number.NEGATIVE_INFINITY;
  private isRefused = false;
  private isClosed = false;
  private gaveUp = false;
  private waiters: (() => void)[] = [];

  constructor(
    private readonly open: () => Stream,
    options: { sharesFiles: boolean; settlementsCountMax: number; log: Log },
  ) {
    this.log = options.log;
    this.session = new Session(options);
  }

  private readonly log: Log;

  /** Whether there is no use in asking for allowances now. */
  get isResting(): boolean {
    return this.isClosed || (this.stream === undefined && this.session.now() < this.restsUntilMs);
  }

  get isFull(): boolean {
    return this.session.isFull;
  }

  /** Draw where the quick draw failed, and have allowances asked for. */
  draw(facts: Facts, stated: Amounts): Drawn | undefined {
    this.session.bind(facts);
    const drawn = this.session.draw(facts, stated);
    if (this.session.isWishing && !this.isClosed) this.pollSoon();
    return drawn;
  }

  /**
   * Have the daemon hear how a call ended; nothing where it was said before.
   *
   * Errors: ReservationNotFound if another client drew it, ReservationClosed if it was closed
   * otherwise, OutboxFull if nobody is left to tell the daemon.
   */
  end(drawn: Drawn, end: End): void {
    this.checkHome(drawn);
    if (this.isClosed && drawn.end === undefined) {
      throw new OutboxFull(
        `the call ${drawn.askId} ended after close(); it is charged at its hold`,
      );
    }
    if (this.session.end(drawn, end)) this.schedule();
  }

  /** Refuse to touch what another client drew. Errors: ReservationNotFound. */
  checkHome(drawn: Drawn): void {
    if (drawn.allowance.home !== this.session) {
      throw new ReservationNotFound(
        `the call ${drawn.askId} was admitted by another client, which alone can close it`,
      );
    }
  }

  /** Wait until the daemon has heard of all calls ended so far; false if not in time. */
  async flush(timeoutMs: number): Promise<boolean> {
    const { reports } = this.session;
    const told = reports.heardCount + reports.settlementsCount;
    this.session.hurry();
    this.hasten();
    return this.until(() => reports.heardCount >= told, timeoutMs);
  }

  /** Try again now: the daemon has just answered something else. */
  wake(): void {
    if (this.reopening !== undefined && !this.isRefused) this.hasten();
  }

  /** Return what is held, and wait a moment for the daemon to hear of everything. */
  async close(timeoutMs: number): Promise<void> {
    if (this.isClosed) return;
    this.isClosed = true;
    this.session.close();
    if (!this.session.isQuiet) {
      this.hasten();
      await this.until(() => this.session.isQuiet, timeoutMs);
    }
    this.gaveUp = true;
    for (const timer of [this.timer, this.reopening, this.idle]) clearTimeout(timer);
    this.stream?.cancel();
    this.session.release();
    const count = this.session.reports.settlementsCount;
    if (count > 0) {
      this.log("error", `the daemon did not hear how ${count} calls ended; charged at their holds`);
    }
  }

  /** Poll now, and cut a pause before the next stream short. */
  private hasten(): void {
    this.restsUntilMs = Number.NEGATIVE_INFINITY;
    if (this.reopening !== undefined) this.reopen(0);
    this.pollSoon();
  }

  private until(condition: () => boolean, timeoutMs: number): Promise<boolean> {
    if (condition()) return Promise.resolve(true);
    return new Promise((resolve) => {
      const done = (isTrue: boolean) => {
        clearTimeout(timer);
        this.waiters = this.waiters.filter((one) => one !== look);
        resolve(isTrue);
      };
      const look = () => condition() && done(true);
      const timer = setTimeout(() => done(condition()), timeoutMs);
      this.waiters.push(look);
    });
  }

  /** Poll in this turn of the event loop, once, whoever asks for it however often. */
  private pollSoon(): void {
    if (this.isPolling) return;
    this.isPolling = true;
    queueMicrotask(() => {
      this.isPolling = false;
      this.poll();
    });
  }

  private poll(): void {
    if (this.gaveUp) return;
    const { session } = this;
    const messages = session.poll();
    if (this.stream === undefined) {
      // What waits to be told is told whenever it can be, also after close().
      const needed = !session.isQuiet || (session.isWishing && !this.isResting);
      if (needed && this.reopening === undefined) this.connect();
    } else {
      for (const message of messages) this.stream.write(message);
    }
    this.schedule();
    this.watchIdle();
  }

  /** Poll again when the session has something to do by then. */
  private schedule(): void {
    const waitMs = this.session.waitMs;
    if (waitMs === undefined || this.gaveUp) return;
    if (waitMs === 0 && this.stream !== undefined) {
      this.pollSoon();
      return;
    }
    const dueMs = performance.now() + Math.max(waitMs, 1);
    if (this.timer !== undefined && this.timerMs <= dueMs) return;
    clearTimeout(this.timer);
    this.timerMs = dueMs;
    this.timer = setTimeout(
      () => {
        this.timer = undefined;
        this.poll();
      },
      Math.max(waitMs, 1),
    );
  }

  private watchIdle(): void {
    const isIdle = this.session.isQuiet && !this.session.isWishing && this.stream !== undefined;
    if (!isIdle || this.isClosed) {
      clearTimeout(this.idle);
      this.idle = undefined;
    } else if (this.idle === undefined) {
      this.idle = setTimeout(() => this.stream?.end(), IDLE_MS);
    }
  }

  private connect(): void {
    const stream = this.open();
    this.stream = stream;
    let code: number | undefined;
    stream.on("data", (message: DaemonMessage) => {
      if (this.stream === stream) this.receive(stream, message);
    });
    stream.on("error", (error: Error & { code?: number }) => {
      code = error.code;
      this.log("info", `the stream of allowances ended: ${error.message}`);
      this.ended(stream, code);
    });
    stream.on("end", () => this.ended(stream, code));
    stream.write(this.session.opened());
  }

  private receive(stream: Stream, message: DaemonMessage): void {
    try {
      this.session.received(message);
    } catch (error) {
      this.log("warn", `the daemon breaks the protocol of allowances: ${String(error)}`);
      stream.cancel();
      this.ended(stream, undefined);
      return;
    }
    if (this.session.mustReopen) {
      stream.cancel();
      this.ended(stream, undefined);
      return;
    }
    this.waitMs = WAIT_MS_FIRST;
    this.isRefused = false;
    this.tell();
    this.poll();
  }

  private ended(stream: Stream, code: number | undefined): void {
    if (this.stream !== stream) return;
    this.stream = undefined;
    clearTimeout(this.idle);
    this.idle = undefined;
    this.session.broken();
    this.session.poll();
    this.isRefused = code !== undefined && REFUSALS.has(code);
    this.tell();
    if (this.gaveUp) return;
    const wasIdle = code === undefined && this.session.isQuiet;
    if (this.session.mustReopen || wasIdle) {
      this.restsUntilMs = Number.NEGATIVE_INFINITY;
      if (this.session.mustReopen) this.reopen(0);
      return;
    }
    const waitMs = this.isRefused ? REFUSED_WAIT_MS : this.waitMs * (0.5 + Math.random() / 2);
    this.waitMs = Math.min(this.waitMs * 2, WAIT_MS_MAX);
    this.restsUntilMs = this.session.now() + waitMs;
    // With nothing held and nothing to say, the next ask opens it again.
    if (!this.session.isQuiet)
      this.reopen(this.isClosed ? Math.min(waitMs, WAIT_MS_FIRST) : waitMs);
  }

  private reopen(waitMs: number): void {
    clearTimeout(this.reopening);
    this.reopening = setTimeout(() => {
      this.reopening = undefined;
      if (this.stream === undefined && !this.gaveUp) this.connect();
    }, waitMs);
  }

  private tell(): void {
    for (const look of [...this.waiters]) look();
  }
}
