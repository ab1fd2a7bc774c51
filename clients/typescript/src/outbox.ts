/** What the daemon has yet to hear, delivered in the background once it answers again. */

import type {
  AdmitRequest,
  RecordRequest,
  SettleRequest,
  VoidRequest,
} from "./pb/costd/v1/admission.js";

/** One request that waits. `abandon` undoes an ask whose answer nobody received. */
export type Entry =
  | { readonly id: string; readonly method: "record"; readonly request: RecordRequest }
  | { readonly id: string; readonly method: "settle"; readonly request: SettleRequest }
  | { readonly id: string; readonly method: "void"; readonly request: VoidRequest }
  | { readonly id: string; readonly method: "abandon"; readonly request: AdmitRequest };

/** How the delivery of one entry went. */
export type Delivery = "done" | "unreachable" | "failed" | "rejected";

export type Log = (level: "info" | "warn" | "error", message: string) => void;

const WAIT_MS_FIRST = 100;
const WAIT_MS_MAX = 5_000;
const REJECTED_COUNT_MAX = 1_000;

/**
 * A bounded queue, delivered in order.
 *
 * Ensures: nothing that costs money is dropped silently. `hold` refuses when full, so that the
 * call is refused; a request that the daemon rejects for good is kept in `rejected` and logged.
 * Every request is safe to deliver twice.
 */
export class Outbox {
  readonly rejected: Entry[] = [];
  private readonly queue = new Map<string, Entry>();
  private readonly held = new Map<string, Entry>();
  private waiters: (() => void)[] = [];
  private endPause: (() => void) | undefined;
  private isRunning = false;
  private isClosed = false;

  constructor(
    private readonly deliver: (entry: Entry) => Promise<Delivery>,
    private readonly capacityCount: number,
    private readonly log: Log,
  ) {}

  /** How many requests wait to be delivered. */
  get queuedCount(): number {
    return this.queue.size;
  }

  /** Keep a place for a call that goes out undecided; false if there is none. */
  hold(entry: Entry): boolean {
    if (this.isClosed || this.queue.size + this.held.size >= this.capacityCount) return false;
    this.held.set(entry.id, entry);
    return true;
  }

  /**
   * Queue an entry, in the place held under its id if there is one; false if full.
   *
   * `droppable` marks what costs nobody money if it is lost; everything else has a hold that
   * expires at the daemon, or a place kept by `hold`, and up to twice the capacity is taken.
   */
  put(entry: Entry, options: { droppable?: boolean } = {}): boolean {
    if (this.isClosed) {
      this.log("warn", `${entry.method} ${entry.id} came after close() and is not sent`);
      return false;
    }
    const kept = this.held.delete(entry.id);
    const room = options.droppable ? this.capacityCount : 2 * this.capacityCount;
    if (!kept && this.queue.size + this.held.size >= room) return false;
    this.queue.set(entry.id, entry);
    void this.run();
    return true;
  }

  /** Give back the place held for a call that was not made after all. */
  drop(id: string): void {
    this.held.delete(id);
  }

  /** Deliver now: the daemon has just answered something else. */
  wake(): void {
    this.endPause?.();
  }

  /** Wait until everything queued is delivered; false if it was not in time. */
  async flush(timeoutMs: number): Promise<boolean> {
    this.wake();
    if (this.queue.size === 0) return true;
    let timer: NodeJS.Timeout | undefined;
    await new Promise<void>((resolve) => {
      this.waiters.push(resolve);
      timer = setTimeout(resolve, timeoutMs);
    });
    clearTimeout(timer);
    return this.queue.size === 0;
  }

  /** Deliver what can be delivered in time, and stop; calls never closed are charged what they asked. */
  async close(timeoutMs: number): Promise<void> {
    for (const entry of [...this.held.values()]) this.put(entry);
    await this.flush(timeoutMs);
    this.isClosed = true;
    this.wake();
    if (this.queue.size > 0) {
      this.log("error", `${this.queue.size} calls were not recorded; lost with this process`);
    }
  }

  private async run(): Promise<void> {
    if (this.isRunning) return;
    this.isRunning = true;
    let waitMs = WAIT_MS_FIRST;
    while (!this.isClosed) {
      const entry = this.queue.values().next().value;
      if (entry === undefined) break;
      const delivery = await this.deliver(entry);
      this.finish(entry, delivery);
      if (delivery === "done" || delivery === "rejected") {
        waitMs = WAIT_MS_FIRST;
        continue;
      }
      await this.pause(waitMs * (0.5 + Math.random() / 2));
      waitMs = Math.min(waitMs * 2, WAIT_MS_MAX);
    }
    this.isRunning = false;
  }

  private async pause(waitMs: number): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    await new Promise<void>((resolve) => {
      this.endPause = resolve;
      timer = setTimeout(resolve, waitMs);
    });
    clearTimeout(timer);
    this.endPause = undefined;
  }

  private finish(entry: Entry, delivery: Delivery): void {
    // Replaced meanwhile by what is known now, or still to be delivered.
    if (delivery === "unreachable" || this.queue.get(entry.id) !== entry) return;
    this.queue.delete(entry.id);
    if (delivery === "failed") {
      this.queue.set(entry.id, entry); // behind the others
      return;
    }
    if (delivery === "rejected") {
      this.log("error", `${entry.method} ${entry.id} was refused for good; see outbox.rejected`);
      this.rejected.push(entry);
      if (this.rejected.length > REJECTED_COUNT_MAX) this.rejected.shift();
    }
    if (this.queue.size > 0) return;
    const waiters = this.waiters;
    this.waiters = [];
    for (const done of waiters) done();
  }
}
