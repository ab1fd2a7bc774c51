/** What is the same for all calls of one kind: all of an ask but its id and its amounts. */

import type { AdmitRequest } from "./pb/costd/v1/admission.js";
import { type Amounts, count, money } from "./requests.js";
import { NO_STOCK, type Stock } from "./stock.js";

/**
 * One kind of call, and the stock of allowances that its calls are drawn from.
 *
 * Shape: `typical` is a checked ask without an id; `stock` and `rest` are set once, by the session,
 * which alone knows the scope labels. When those change, other Facts take their place.
 */
export class Facts {
  stock: Stock = NO_STOCK;
  /** Labels that no rule reads and that ride along with each settlement. */
  rest: Readonly<Record<string, string>> = {};
  /** Which scope labels `stock` and `rest` were found by. */
  epoch: object | undefined;

  constructor(readonly typical: AdmitRequest) {}

  /** Name the scope that these calls belong to. */
  key(scopeLabels: readonly string[]): string {
    const { taskClass, provider, model, tier, batch, acceptableModels, labels } = this.typical;
    const values = scopeLabels.map((label) => labels[label] ?? null);
    return JSON.stringify([taskClass, provider, model, tier, batch, acceptableModels, values]);
  }

  /** Write a typical call of the scope, with the labels that rules read and no others. */
  scoped(scopeLabels: ReadonlySet<string>, stated: Amounts): AdmitRequest {
    const read = Object.entries(this.typical.labels).filter(([label]) => scopeLabels.has(label));
    return withAmounts({ ...this.typical, labels: Object.fromEntries(read) }, stated);
  }
}

/** Write what one call states into its ask. */
export function withAmounts(ask: AdmitRequest, stated: Amounts): AdmitRequest {
  return {
    ...ask,
    promptTokens: count("promptTokens", stated.promptTokens),
    maxOutputTokens: count("maxOutputTokens", stated.maxOutputTokens),
    estimatedCostNusd: money("estimatedCostNusd", stated.estimatedCostNusd),
  };
}
