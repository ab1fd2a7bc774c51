/** What one scope has: the allowance that is drawn, the one beside it, and what to ask for. */

import type { Allowance } from "./allowance.js";
import type { Drawn } from "./drawn.js";
import type { Facts } from "./facts.js";
import { newAskId } from "./ids.js";
import type { Amounts } from "./requests.js";

/** Asked for before anybody knows how often a scope calls; grows eightfold at most each time. */
const CALLS_COUNT_FIRST = 16;
const GROWTH_MAX = 8;
const CALLS_COUNT_MAX = 1_000_000;
/** What lifetimes are taken to be when calls are counted ahead. */
const LIFETIME_MS = 5_000;
/** A request that is not answered for so long may be made again. */
const REPEAT_MS = 5_000;
/** A wish that could not be sent for so long is forgotten: nobody may call any more. */
export const WANTED_MS = 5_000;
const STOCKS_COUNT_MAX = 4_096;
const REQUESTS_COUNT_MAX = 1_024;

/** A call that found nothing to draw, or the first half drawn. */
export interface Wish {
  readonly facts: Facts;
  readonly stated: Amounts;
  readonly wishedMs: number;
}

/** A request on its way; lifetimes count from `sentMs`. */
export interface Request {
  readonly id: string;
  readonly stock: Stock;
  readonly callsCount: number;
  readonly sentMs: number;
}

/** The allowances of one scope. */
export class Stock {
  current: Allowance | undefined;
  next: Allowance | undefined;
  last: Request | undefined;
  /** Whether `last` is not answered. */
  isWaiting = false;
  wish: Wish | undefined;
  retryMs = 0;
  /** Asks since the last request that were not drawn. */
  askedCount = 0;

  /** Draw where the quick draw failed; also return the allowance that is over by it. */
  draw(facts: Facts, stated: Amounts): { drawn?: Drawn; over?: Allowance } {
    if (this.current === undefined) return {};
    const drawn = drawAll(this.current, facts, stated);
    if (drawn !== undefined) return { drawn };
    if (this.next === undefined) return {};
    const fromNext = drawAll(this.next, facts, stated);
    if (fromNext === undefined) return {};
    const over = this.current;
    this.current = this.next;
    this.next = undefined;
    return { drawn: fromNext, over };
  }

  /** Keep what was granted; false if there is enough already. */
  put(allowance: Allowance): boolean {
    if (this.current === undefined) this.current = allowance;
    else if (this.next === undefined) this.next = allowance;
    else return false;
    return true;
  }

  /** Take out an allowance that may not be drawn any more. */
  remove(allowance: Allowance): void {
    if (this.next === allowance) this.next = undefined;
    if (this.current === allowance) {
      this.current = this.next;
      this.next = undefined;
    }
  }

  /** Tell whether another allowance is to be asked for now. */
  needs(nowMs: number): boolean {
    const waits = this.isWaiting && this.last !== undefined && nowMs - this.last.sentMs < REPEAT_MS;
    return this.next === undefined && !waits && nowMs >= this.retryMs;
  }

  /** Whether nothing is lost by forgetting this scope. */
  get isIdle(): boolean {
    return this.current === undefined && !this.isWaiting && this.wish === undefined;
  }

  /**
   * Guess how many calls like this one will be made in one lifetime.
   *
   * Ensures: between `CALLS_COUNT_FIRST` and eight times the last request, and as much more as
   * this call is smaller than the ones before it.
   */
  expectedCalls(stated: Amounts, nowMs: number): number {
    const { last, current } = this;
    if (last === undefined) return CALLS_COUNT_FIRST;
    const drawnCount = current?.callsCount ?? 0;
    const elapsedMs = Math.max(nowMs - last.sentMs, 0.001);
    let expected = (2 * (this.askedCount + drawnCount) * LIFETIME_MS) / elapsedMs;
    const hold = current?.holdOf(stated) ?? 0;
    if (current !== undefined && hold > 0 && drawnCount > 0) {
      expected *= Math.max(current.amountNusd / drawnCount, hold) / hold;
    }
    const most = Math.min(CALLS_COUNT_MAX, GROWTH_MAX * last.callsCount);
    return Math.max(CALLS_COUNT_FIRST, Math.min(Math.floor(expected), most));
  }
}

/** What facts have whose scope is not known yet; nothing is ever in it. */
export const NO_STOCK = new Stock();

/** The stocks by scope; bounded, as far as they are idle. */
export class Stocks {
  private readonly stocks = new Map<string, Stock>();

  of(key: string): Stock {
    let stock = this.stocks.get(key);
    if (stock === undefined) {
      if (this.stocks.size >= STOCKS_COUNT_MAX) {
        for (const [other, one] of this.stocks) if (one.isIdle) this.stocks.delete(other);
      }
      stock = new Stock();
      this.stocks.set(key, stock);
    }
    return stock;
  }

  forget(): void {
    this.stocks.clear();
  }
}

/** Requests on their way; the oldest of too many is forgotten. */
export class Requests {
  private readonly requests = new Map<string, Request>();

  get size(): number {
    return this.requests.size;
  }

  make(stock: Stock, callsCount: number, sentMs: number): Request {
    const request = { id: newAskId(), stock, callsCount, sentMs };
    stock.last = request;
    stock.isWaiting = true;
    stock.askedCount = 0;
    this.requests.set(request.id, request);
    const [oldest] = this.requests.keys();
    if (this.requests.size > REQUESTS_COUNT_MAX && oldest) this.requests.delete(oldest);
    return request;
  }

  /** Take out what was answered. */
  take(id: string): Request | undefined {
    const request = this.requests.get(id);
    this.requests.delete(id);
    if (request?.stock.last === request && request !== undefined) request.stock.isWaiting = false;
    return request;
  }

  /** Expect no answers any more: the stream that they were sent on broke. */
  forget(): void {
    for (const { stock } of this.requests.values()) stock.isWaiting = false;
    this.requests.clear();
  }
}

function drawAll(allowance: Allowance, facts: Facts, stated: Amounts): Drawn | undefined {
  const { promptTokens, maxOutputTokens, estimatedCostNusd } = stated;
  const draw = () => allowance.draw(facts, promptTokens, maxOutputTokens, estimatedCostNusd);
  return draw() ?? (allowance.stretch() ? draw() : undefined);
}
