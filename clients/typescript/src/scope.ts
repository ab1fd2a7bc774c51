/** Finds the scope of a call, and draws; scopes bound once for hot loops. */

import type { Attached } from "./attached.js";
import { asDecision, type Decision } from "./decision.js";
import type { Drawn } from "./drawn.js";
import { InvalidAsk } from "./errors.js";
import { Facts } from "./facts.js";
import {
  type Amounts,
  type Ask,
  buildAsk,
  COUNT_MAX,
  type Defaults,
  INT64_MAX,
  type Kind,
} from "./requests.js";

const FACTS_COUNT_MAX = 1_024;

/** Which facts belong to which asks, remembered; bounded, and begun anew when full. */
export class Scopes {
  private readonly facts = new Map<string, Facts>();

  constructor(
    private readonly defaults: Defaults,
    private readonly attached: Attached,
  ) {}

  /** Admit a call in the process; undefined where the daemon has to be asked, or has to refuse. */
  draw(ask: Ask): Drawn | undefined {
    if (ask.askId || ask.overrideGrant || ask.ttlMs !== undefined || ask.units) return undefined;
    const { promptTokens, maxOutputTokens, estimatedCostNusd } = ask;
    const key = keyOf(ask);
    const facts = this.facts.get(key);
    const quick = facts?.stock.current?.draw(
      facts,
      promptTokens,
      maxOutputTokens,
      estimatedCostNusd,
    );
    if (quick !== undefined) return quick;
    const stated = { promptTokens, maxOutputTokens, estimatedCostNusd };
    const found = this.slowly(facts, ask, stated);
    if (found === undefined) return undefined;
    if (found.facts !== facts) {
      if (this.facts.size >= FACTS_COUNT_MAX) this.facts.clear();
      this.facts.set(key, found.facts);
    }
    return found.drawn;
  }

  /** Find the facts, and draw where the quick draw did not. */
  slowly(
    known: Facts | undefined,
    kind: Kind,
    stated: Amounts,
  ): { facts: Facts; drawn: Drawn | undefined } | undefined {
    if (this.attached.isResting || !isDrawable(stated)) return undefined;
    let facts = known;
    if (facts === undefined || facts.epoch !== this.attached.session.epoch) {
      facts = this.resolve(kind);
      if (facts === undefined) return undefined;
    }
    return { facts, drawn: this.attached.draw(facts, stated) };
  }

  /** Build what such calls share; undefined for what the daemon's path has to refuse. */
  private resolve(kind: Kind): Facts | undefined {
    try {
      const typical = buildAsk(this.defaults, kindOf(kind));
      return new Facts({ ...typical, askId: "" });
    } catch (error) {
      if (error instanceof InvalidAsk) return undefined;
      throw error;
    }
  }
}

/** What calls of one kind have in common, bound once, for loops that admit many. */
export class Scope {
  private facts: Facts | undefined;

  constructor(
    private readonly kind: Kind,
    private readonly scopes: Scopes | undefined,
    private readonly ask: (ask: Ask, signal?: AbortSignal) => Promise<Decision>,
  ) {}

  /** Ask whether a call may happen; as `Client.admit`, and faster. */
  async admit(amounts: Amounts, options: { signal?: AbortSignal } = {}): Promise<Decision> {
    return this.draw(amounts) ?? (await this.ask({ ...this.kind, ...amounts }, options.signal));
  }

  /** Admit a call in the process, in this turn of the event loop; undefined: use `admit`. */
  draw(amounts: Amounts): Decision | undefined {
    const { facts } = this;
    const { promptTokens, maxOutputTokens, estimatedCostNusd } = amounts;
    const quick = facts?.stock.current?.draw(
      facts,
      promptTokens,
      maxOutputTokens,
      estimatedCostNusd,
    );
    if (quick !== undefined) return asDecision(quick);
    const stated = { promptTokens, maxOutputTokens, estimatedCostNusd };
    const found = this.scopes?.slowly(facts, this.kind, stated);
    if (found === undefined) return undefined;
    this.facts = found.facts;
    return found.drawn && asDecision(found.drawn);
  }
}

/** Leave out of an ask what is one call's own. */
function kindOf({
  taskClass,
  model,
  provider,
  tier,
  labels,
  acceptableModels,
  batch,
  costKind,
}: Kind): Ask {
  return { taskClass, model, provider, tier, labels, acceptableModels, batch, costKind };
}

/** Write what `kindOf` leaves as text: each part behind its length, so that none passes for two. */
function keyOf(ask: Ask): string {
  let key = part(ask.taskClass) + part(ask.provider) + part(ask.model) + part(ask.tier);
  for (const label in ask.labels) key += part(label) + part(`${ask.labels[label]}`);
  if (ask.acceptableModels || ask.batch || ask.costKind) {
    key += JSON.stringify([ask.acceptableModels, ask.batch, ask.costKind]);
  }
  return key;
}

function part(given: string | undefined): string {
  const text = given ?? "";
  return `${text.length}:${text}`;
}

/** Whether these are amounts that an allowance can be drawn by. */
function isDrawable({ promptTokens, maxOutputTokens, estimatedCostNusd }: Amounts): boolean {
  if (estimatedCostNusd === undefined && promptTokens === undefined) return false;
  if (estimatedCostNusd !== undefined) {
    const isMoney = typeof estimatedCostNusd === "bigint";
    if (!isMoney || estimatedCostNusd < 0n || estimatedCostNusd > INT64_MAX) return false;
  }
  return [promptTokens, maxOutputTokens].every(
    (count) =>
      count === undefined || (Number.isSafeInteger(count) && count >= 0 && count <= COUNT_MAX),
  );
}
