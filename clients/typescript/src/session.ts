/**
 * The protocol of allowances, without sockets or timers of its own.
 *
 * Events come in as calls (`opened`, `received`, `broken`, `draw`, `end`, `close`), messages go out
 * of `opened` and `poll`.
 */

import { Allowance, Gate, type Home } from "./allowance.js";
import { SteadyClock } from "./clock.js";
import type { Drawn, End } from "./drawn.js";
import { ReservationClosed } from "./errors.js";
import type { Facts } from "./facts.js";
import { newAskId } from "./ids.js";
import type { Log } from "./outbox.js";
import { CAN_SHARE, Pages } from "./pages.js";
import {
  type AllowanceGrant,
  type AllowanceRequest,
  type ClientMessage,
  type DaemonMessage,
  type Generation,
  Verdict,
  type Welcome,
} from "./pb/costd/v1/admission.js";
import { DRAWS_MS, REPORT_MS, Reports } from "./reports.js";
import { type Amounts, milliseconds } from "./requests.js";
import { NO_STOCK, Requests, type Stock, Stocks, WANTED_MS, type Wish } from "./stock.js";

const WAITING_COUNT_MAX = 256;
/** When to ask again for a scope that was granted nothing, if the daemon does not say. */
const RETRY_MS = 1_000;

/** The daemon said what it must not say; the stream is to be opened anew. */
export class ProtocolBroken extends Error {}

/** How a session is set up. */
export interface SessionOptions {
  /** Whether the daemon is on this host, behind a Unix socket. */
  readonly sharesFiles: boolean;
  readonly settlementsCountMax: number;
  readonly log: Log;
}

/** One client at one daemon, over as many streams as it takes. */
export class Session implements Home {
  readonly id = newAskId();
  readonly gate = new Gate();
  readonly reports = new Reports();
  /** Changes with the scope labels; undefined before they are known. */
  epoch: object | undefined;
  /** Whether this stream is of no use and another is to be opened at once. */
  mustReopen = false;
  private readonly clock = new SteadyClock();
  private link: "down" | "greeted" | "welcomed" = "down";
  private sharesFiles: boolean;
  private pages: Pages | undefined;
  private generation = 0n;
  private scopeLabels: ReadonlySet<string> | undefined;
  private readonly stocks = new Stocks();
  private readonly wishing = new Set<Stock>();
  private readonly waiting = new Map<Facts, Wish>();
  private readonly requests = new Requests();
  private readonly held = new Map<string, { allowance: Allowance; stock: Stock }>();
  private readonly over: Allowance[] = [];
  private numbered = 0;
  private isClosed = false;
  private hurries = false;

  constructor(private readonly options: SessionOptions) {
    this.sharesFiles = options.sharesFiles && CAN_SHARE;
  }

  now(): number {
    return this.clock.now();
  }

  /** Whether so many settlements wait that no more calls may be drawn. */
  get isFull(): boolean {
    return this.reports.settlementsCount >= this.options.settlementsCountMax;
  }

  /** Whether the daemon has heard everything, and is about to grant nothing. */
  get isQuiet(): boolean {
    return this.holdsNothing && this.reports.isQuiet;
  }

  get holdsNothing(): boolean {
    return this.held.size + this.over.length + this.requests.size === 0;
  }

  /** Whether `poll` has something to ask for. */
  get isWishing(): boolean {
    return this.wishing.size > 0 || this.waiting.size > 0;
  }

  /** Have what waits reported with the next `poll`, without waiting for more to say. */
  hurry(): void {
    this.hurries = true;
  }

  // ---- the stream

  /** Begin a stream. */
  opened(): ClientMessage {
    this.link = "greeted";
    this.mustReopen = false;
    const value = {
      sessionId: this.id,
      mapsPages: this.sharesFiles,
      heldAllowanceIds: [...this.held.keys(), ...this.over.map(({ id }) => id)],
    };
    return { message: { $case: "hello", value } };
  }

  /** End a stream; what is held may be drawn until its lifetime ends. */
  broken(): void {
    this.link = "down";
    this.requests.forget();
  }

  /** Take in what the daemon says; `poll` afterwards. Errors: ProtocolBroken. */
  received({ message }: DaemonMessage): void {
    const kind = message?.$case;
    if (this.link === "down" || (kind === "welcome") !== (this.link === "greeted")) {
      throw new ProtocolBroken(`${kind} came while the stream was ${this.link}`);
    }
    switch (message?.$case) {
      case "welcome":
        this.welcomed(message.value);
        break;
      case "grant":
        this.wasGranted(message.value);
        break;
      case "acknowledgement":
        for (const problem of message.value.problems) {
          this.options.log("warn", `in report ${message.value.sequence}: ${problem}`);
        }
        this.reports.acknowledge(Number(message.value.sequence));
        break;
      case "revocation":
        this.retire(message.value.allowanceId);
        break;
      case "generation":
        this.changed(message.value);
        break;
    }
    this.setGate();
  }

  /** Do what the time has come for, and say what is to be said now. */
  poll(): ClientMessage[] {
    const nowMs = this.now();
    for (const { allowance } of [...this.held.values()]) {
      if (nowMs >= allowance.endsMs || allowance.isClosed) this.retire(allowance.id);
    }
    this.setGate();
    if (this.link !== "welcomed") return [];
    const asked = this.ask(nowMs).map(
      (value): ClientMessage => ({
        message: { $case: "request", value },
      }),
    );
    const drawsMs = this.pages === undefined ? REPORT_MS : DRAWS_MS;
    const held = [...this.held.values()].map(({ allowance }) => allowance);
    this.reports.make(held, this.over, nowMs, { drawsMs, atOnce: this.hurries });
    this.hurries = this.isClosed || (this.hurries && this.reports.hasQueued);
    const reports = this.reports.unsent().map(
      (value): ClientMessage => ({
        message: { $case: "report", value },
      }),
    );
    return [...asked, ...reports];
  }

  /** Say how long `poll` can wait; undefined: until something happens. */
  get waitMs(): number | undefined {
    if (this.link === "welcomed" && this.reports.isDue(this.hurries)) return 0;
    const says = this.over.length > 0 || this.reports.hasQueued;
    if (says || (this.held.size > 0 && this.pages === undefined)) return REPORT_MS;
    if (this.held.size === 0) return undefined;
    const endsMs = Math.min(...[...this.held.values()].map(({ allowance }) => allowance.endsMs));
    return Math.min(DRAWS_MS, Math.max(0, endsMs - this.now()));
  }

  // ---- calls

  /** Find the scope of facts that have none yet. */
  bind(facts: Facts): void {
    const read = this.scopeLabels;
    if (read === undefined || facts.epoch !== undefined) return;
    const key = facts.key([...read].sort());
    const stock = this.stocks.of(key);
    const rest = Object.entries(facts.typical.labels).filter(([label]) => !read.has(label));
    facts.rest = Object.fromEntries(rest);
    facts.stock = stock;
    facts.epoch = this.epoch;
  }

  /**
   * Admit a call that the quick draw did not; undefined: ask the daemon.
   *
   * Ensures: an allowance that runs low or is missing is asked for with the next `poll`.
   */
  draw(facts: Facts, stated: Amounts): Drawn | undefined {
    if (this.isClosed || this.isFull) return undefined;
    const nowMs = this.now();
    const wish = { facts, stated, wishedMs: nowMs };
    if (this.epoch === undefined) {
      if (this.waiting.size < WAITING_COUNT_MAX) this.waiting.set(facts, wish);
      return undefined;
    }
    if (facts.epoch !== this.epoch) return undefined; // other scope labels since
    const stock = facts.stock;
    const { drawn, over } = stock.draw(facts, stated);
    if (over !== undefined) this.retire(over.id);
    if (drawn === undefined) stock.askedCount += 1;
    if (stock.needs(nowMs) && (drawn === undefined || stock.current?.isLow)) {
      stock.wish = wish;
      this.wishing.add(stock);
    }
    return drawn;
  }

  /**
   * Close a drawn call; false where the same was said before.
   *
   * Errors: ReservationClosed if it was closed otherwise before.
   */
  end(drawn: Drawn, end: End): boolean {
    const known = drawn.allowance.closeDraw(drawn, end);
    if (known === "other") {
      throw new ReservationClosed(`the call ${drawn.askId} was closed otherwise before`);
    }
    if (known === "same") return false;
    this.reports.say(drawn, end);
    if (this.isFull) this.gate.shut();
    return true;
  }

  /** Return everything; the last reports come with the next `poll`. */
  close(): void {
    this.isClosed = this.hurries = true;
    this.retireAll();
  }

  /** Let go of the pages' files; nothing can be drawn or told after this. */
  release(): void {
    this.pages?.close();
    this.pages = this.gate.pages = undefined;
    this.gate.shut();
  }

  // ---- inside

  private welcomed(welcome: Welcome): void {
    if (!this.reports.resume(Number(welcome.reportSequence), welcome.unnamedAllowanceIds)) {
      this.options.log("warn", "the daemon does not know this session's reports as they were");
    }
    if (!this.openPages(welcome)) {
      this.mustReopen = true;
      return;
    }
    this.learnLabels(welcome.scopeLabels);
    const good = new Set(welcome.goodAllowanceIds);
    for (const { allowance } of [...this.held.values()]) {
      if (!good.has(allowance.id) || !this.counts(allowance)) this.retire(allowance.id);
    }
    this.link = "welcomed";
    this.generation = welcome.generation;
    // Only now, with nothing left that must not be drawn, does the gate open.
    this.gate.pages = this.pages;
    for (const [facts, wish] of this.waiting) {
      this.bind(facts);
      facts.stock.wish = wish;
      this.wishing.add(facts.stock);
    }
    this.waiting.clear();
  }

  /** Open the pages named; false where that fails, so that the daemon must hear of it. */
  private openPages(welcome: Welcome): boolean {
    const before = this.pages;
    this.gate.shut();
    this.gate.pages = this.pages = undefined;
    try {
      if (this.sharesFiles && welcome.clientPage !== "") {
        this.pages = new Pages(welcome.daemonPage, welcome.clientPage);
      }
      return true;
    } catch (error) {
      this.options.log("info", `goes on without pages: ${String(error)}`);
      this.sharesFiles = false;
      this.retireAll();
      return false;
    } finally {
      before?.close();
    }
  }

  /** Have an allowance's sums written where the daemon looks for them. */
  private counts(allowance: Allowance): boolean {
    try {
      return allowance.countIn(this.pages);
    } catch {
      return false;
    }
  }

  private changed(generation: Generation): void {
    this.reports.learn(generation);
    // Else the Welcome of this stream knew better.
    if (generation.generation < this.generation) return;
    this.learnLabels(generation.scopeLabels);
    this.generation = generation.generation;
  }

  /** Begin anew where other labels are read: what is held was granted for other scopes. */
  private learnLabels(scopeLabels: readonly string[]): void {
    const labels = new Set(scopeLabels);
    const known = this.scopeLabels;
    if (known?.size === labels.size && scopeLabels.every((label) => known.has(label))) return;
    this.retireAll();
    this.stocks.forget();
    this.wishing.clear();
    this.requests.forget();
    this.scopeLabels = labels;
    this.epoch = {};
  }

  private wasGranted(grant: AllowanceGrant): void {
    const nowMs = this.now();
    const request = this.requests.take(grant.requestId);
    if (grant.allowance === undefined) {
      if (request !== undefined) {
        const waitMs = grant.retryAfter === undefined ? RETRY_MS : milliseconds(grant.retryAfter);
        request.stock.retryMs = nowMs + waitMs;
      }
      return;
    }
    if (this.held.has(grant.allowance.allowanceId)) {
      throw new ProtocolBroken(`${grant.allowance.allowanceId} was granted twice`);
    }
    this.numbered += 1;
    const prefix = `${this.id}.${this.numbered.toString(16)}.`;
    const sentMs = request?.sentMs ?? Number.NEGATIVE_INFINITY;
    const allowance = new Allowance(grant.allowance, this, sentMs, prefix);
    const stock = request?.stock ?? NO_STOCK;
    this.held.set(allowance.id, { allowance, stock });
    const verdict = allowance.decision.verdict;
    const usable =
      request !== undefined &&
      !this.isClosed &&
      nowMs < allowance.endsMs &&
      (verdict === Verdict.VERDICT_ALLOW || verdict === Verdict.VERDICT_DEGRADE) &&
      this.counts(allowance) &&
      stock.put(allowance);
    if (!usable) this.retire(allowance.id);
  }

  /** Write a request for each scope that wishes one. */
  private ask(nowMs: number): AllowanceRequest[] {
    const asked: AllowanceRequest[] = [];
    for (const stock of this.wishing) {
      const wish = stock.wish;
      stock.wish = undefined;
      const isLate = wish === undefined || nowMs - wish.wishedMs >= WANTED_MS;
      if (wish === undefined || isLate || !stock.needs(nowMs) || this.isClosed) continue;
      const typical = wish.facts.scoped(this.scopeLabels ?? new Set(), wish.stated);
      const callsCount = stock.expectedCalls(wish.stated, nowMs);
      const { id } = this.requests.make(stock, callsCount, nowMs);
      asked.push({ requestId: id, typical, callsCount: BigInt(callsCount) });
    }
    this.wishing.clear();
    return asked;
  }

  /** Draw no more from an allowance, and have it returned; nothing for an unknown one. */
  private retire(allowanceId: string): void {
    const held = this.held.get(allowanceId);
    if (held === undefined) return;
    this.held.delete(allowanceId);
    held.allowance.close();
    held.stock.remove(held.allowance);
    this.over.push(held.allowance);
  }

  private retireAll(): void {
    for (const allowanceId of [...this.held.keys()]) this.retire(allowanceId);
  }

  private setGate(): void {
    if (this.isFull || this.epoch === undefined) this.gate.shut();
    else this.gate.open(this.generation);
  }
}
