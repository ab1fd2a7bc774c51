/** Enlarging and leaving calls that were drawn from an allowance. */

import type { Attached } from "./attached.js";
import type { Drawn } from "./drawn.js";
import { Extension, Reason, type Usage } from "./pb/costd/v1/admission.js";
import { UNPRICED } from "./price.js";
import type { Closing } from "./requests.js";

/**
 * Enlarge a hold from the same allowance, if it has room.
 *
 * Shape: how long the money is held was fixed with the allowance; a call that outlives it is
 * charged at its hold until it is settled, so a longer time is granted by not asking.
 */
export function extendDrawn(drawn: Drawn, moreNusd: number, outputTokens: number): Extension {
  const amount = outputTokens > 0 && moreNusd === 0 ? priceOf(drawn, outputTokens) : moreNusd;
  const asksNothing = amount === 0 && outputTokens === 0;
  const fits =
    asksNothing || (amount >= 0 && drawn.allowance.drawMore(drawn, amount, outputTokens));
  return Extension.fromPartial({
    reservationId: drawn.reservationId,
    extended: fits,
    reason: fits ? Reason.REASON_OK : Reason.REASON_BUDGET_EXHAUSTED,
    holdNusd: drawn.holdNusd,
    expiresNs: drawn.expiresNs,
    directives: fits ? undefined : { stop: true },
  });
}

/** Leave a call whose end nobody knows: charged at its hold, or at what is known if more. */
export function leaveDrawn(drawn: Drawn, known: Closing, attached: Attached): void {
  if (known.usage === undefined || !exceeds(drawn, known.usage)) return;
  attached.end(drawn, { closing: known, settledMs: Date.now() });
}

/** Price output beyond what was drawn; negative where the allowance prices no tokens. */
function priceOf(drawn: Drawn, outputTokens: number): number {
  const { price } = drawn.allowance;
  const prompt = drawn.promptTokens;
  if (!price.prices || prompt === undefined) return UNPRICED;
  const before = Math.max(drawn.tokensCount - prompt, 0);
  return price.costNusd(prompt, before + outputTokens) - price.costNusd(prompt, before);
}

/** Tell whether usage is known to cost more than is held. */
function exceeds(drawn: Drawn, usage: Usage): boolean {
  const { price } = drawn.allowance;
  const [prompt, output] = [Number(usage.promptTokens ?? 0n), Number(usage.outputTokens ?? 0n)];
  if (!price.prices) return drawn.tokensCount > 0 && prompt + output > drawn.tokensCount;
  // What was read from a cache may cost next to nothing.
  const paid = Math.max(prompt - Number(usage.cachedTokens ?? 0n), 0);
  return BigInt(price.costNusd(paid, output)) > drawn.holdNusd;
}
