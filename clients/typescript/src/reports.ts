/** What the daemon has to hear of draws: numbered reports, kept until they are acknowledged. */

import type { Allowance } from "./allowance.js";
import type { Drawn, End } from "./drawn.js";
import { type Generation, Report } from "./pb/costd/v1/admission.js";

/** How long a report waits for more to say; the protocol allows twice as much. */
export const REPORT_MS = 25;
/** How long draws alone wait to be told of, where the daemon reads them in the client's page. */
export const DRAWS_MS = 1_000;
/** The most in one report, by the protocol, so that booking one never takes long. */
const SETTLEMENTS_COUNT = 200;
/** About the most labels in one report; gRPC refuses messages beyond four million bytes. */
const LABELS_LENGTH = 500_000;
/** Reports under way; more would only wait at the daemon. */
const UNACKNOWLEDGED_COUNT_MAX = 64;

/**
 * Settlements that wait, and reports under way.
 *
 * Ensures: each settlement stands in exactly one report, and each report keeps its number until it
 * is acknowledged, however often it is sent.
 */
export class Reports {
  /** How many settlements the daemon has acknowledged. */
  heardCount = 0;
  private queue: [Drawn, End][] = [];
  private readonly unacknowledged: Report[] = [];
  private unacknowledgedSettlementsCount = 0;
  /** How many of the unacknowledged were sent on this stream. */
  private sentCount = 0;
  private sequence = 0;
  private madeMs = Number.NEGATIVE_INFINITY;
  /** A generation that the next report, made at once, has to name; 0: none. */
  private confirms = 0n;
  /** Allowances to return that never came: the stream that carried them broke. */
  private lost: string[] = [];

  /** How many settlements the daemon has not acknowledged. */
  get settlementsCount(): number {
    return this.queue.length + this.unacknowledgedSettlementsCount;
  }

  get isQuiet(): boolean {
    return this.queue.length + this.unacknowledged.length + this.lost.length === 0;
  }

  get hasQueued(): boolean {
    return this.queue.length > 0;
  }

  /** Whether a report need not wait for more to say. */
  isDue(atOnce: boolean): boolean {
    const room = this.unacknowledged.length < UNACKNOWLEDGED_COUNT_MAX;
    const isMuch = this.queue.length >= (atOnce ? 1 : SETTLEMENTS_COUNT);
    return room && (isMuch || this.lost.length > 0);
  }

  /** Take the reports that this stream has not carried yet, in order. */
  unsent(): Report[] {
    const waiting = this.unacknowledged.slice(this.sentCount);
    this.sentCount = this.unacknowledged.length;
    return waiting;
  }

  /**
   * Write the next report if it is time and there is something to say.
   *
   * Shape: takes what it says out of the queue and out of `over`; draws alone are told of once
   * `drawsMs` have passed.
   */
  make(
    allowances: Iterable<Allowance>,
    over: Allowance[],
    nowMs: number,
    { drawsMs, atOnce }: { drawsMs: number; atOnce: boolean },
  ): boolean {
    if (this.unacknowledged.length >= UNACKNOWLEDGED_COUNT_MAX) return false;
    const waitsMs = this.queue.length > 0 ? REPORT_MS : drawsMs;
    const early = nowMs - this.madeMs < waitsMs;
    if (early && over.length === 0 && this.confirms === 0n && !this.isDue(atOnce)) return false;
    const report = Report.fromPartial({
      sequence: BigInt(this.sequence + 1),
      generation: this.confirms,
    });
    this.writeSettlements(report);
    for (const allowance of allowances) writeDrawn(report, allowance);
    for (const allowance of over) {
      writeDrawn(report, allowance);
      report.returnedAllowanceIds.push(allowance.id);
    }
    report.returnedAllowanceIds.push(...this.lost);
    over.length = this.lost.length = 0;
    const says =
      report.drawn.length + report.settlements.length + report.returnedAllowanceIds.length > 0;
    if (!says && this.confirms === 0n) return false;
    this.confirms = 0n;
    this.sequence += 1;
    this.madeMs = nowMs;
    this.unacknowledged.push(report);
    this.unacknowledgedSettlementsCount += report.settlements.length;
    return true;
  }

  /** Forget the reports up to this one. */
  acknowledge(sequence: number): void {
    while (this.unacknowledged[0] !== undefined && this.unacknowledged[0].sequence <= sequence) {
      const count = this.unacknowledged.shift()?.settlements.length ?? 0;
      this.unacknowledgedSettlementsCount -= count;
      this.heardCount += count;
      this.sentCount = Math.max(this.sentCount - 1, 0);
    }
  }

  /** Have a generation confirmed where that was asked for. */
  learn(generation: Generation): void {
    if (generation.confirm || this.confirms !== 0n) this.confirms = generation.generation;
  }

  /** Queue how a call ended. */
  say(drawn: Drawn, end: End): void {
    this.queue.push([drawn, end]);
  }

  /**
   * Have everything behind the last booked report sent on a new stream.
   *
   * Shape: false where the daemon knows of fewer reports than it acknowledged, or of more than
   * were made: then what is left is numbered on from those it knows. Of the allowances that nobody
   * named, those that no report returns are returned.
   */
  resume(booked: number, unnamed: readonly string[]): boolean {
    this.sentCount = 0;
    const known = this.sequence - this.unacknowledged.length <= booked && booked <= this.sequence;
    if (known) this.acknowledge(booked);
    const returned = new Set(this.unacknowledged.flatMap((one) => one.returnedAllowanceIds));
    // Other books may have open what was drawn and returned long ago: let them presume it.
    this.lost = unnamed.filter((id) => known && !returned.has(id));
    for (const [index, report] of this.unacknowledged.entries()) {
      report.sequence = BigInt(booked + 1 + index);
    }
    this.sequence = booked + this.unacknowledged.length;
    return known;
  }

  private writeSettlements(report: Report): void {
    const indexes = new Map<object, number>();
    let length = 0;
    let taken = 0;
    for (const [drawn, end] of this.queue) {
      if (taken >= SETTLEMENTS_COUNT || length >= LABELS_LENGTH) break;
      taken += 1;
      const rest = drawn.facts.rest;
      let index = indexes.get(rest) ?? 0;
      if (index === 0 && Object.keys(rest).length > 0) {
        index = report.labels.push({ labels: { ...rest } });
        indexes.set(rest, index);
        length += JSON.stringify(rest).length;
      }
      report.settlements.push(drawn.settlement(end, index));
    }
    this.queue = this.queue.slice(taken);
  }
}

function writeDrawn(report: Report, allowance: Allowance): void {
  const sums = allowance.sums();
  const { callsCount, amountNusd, tokensCount } = allowance.reported;
  if (
    sums.callsCount === callsCount &&
    sums.amountNusd === amountNusd &&
    sums.tokensCount === tokensCount
  ) {
    return;
  }
  allowance.reported = sums;
  report.drawn.push({
    allowanceId: allowance.id,
    callsCount: BigInt(sums.callsCount),
    amountNusd: BigInt(sums.amountNusd),
    tokensCount: BigInt(sums.tokensCount),
  });
}
