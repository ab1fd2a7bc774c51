/** How an allowance prices a draw that states tokens. */

import type { PriceTable } from "./pb/costd/v1/admission.js";

/** What cannot be priced, or not exactly. */
export const UNPRICED = -1;

interface Band {
  readonly above: number;
  readonly input: number;
  readonly output: number;
}

/**
 * (perRequest + prompt × input + output × output) ÷ scale, rounded up.
 *
 * Shape: whole numbers below 2^53, in which `number` is exact and far faster than `bigint`. What
 * leaves that range is priced in bigints, and a cost beyond it is `UNPRICED`.
 * Units: nano-USD per `scale` tokens or requests.
 */
export class PriceLine {
  private readonly scale: number;
  private readonly perRequest: number;
  /** Highest first. */
  private readonly bands: readonly Band[];

  /** Read a price table; one that makes no sense prices nothing. */
  constructor(table: PriceTable | undefined) {
    const { scale, perRequest, bands } = table === undefined ? NOTHING : reduced(table);
    this.scale = Number(scale);
    this.perRequest = Number(perRequest);
    this.bands = bands
      .map((band) => ({
        above: Number(band.aboveTokens),
        input: Number(band.input),
        output: Number(band.output),
      }))
      .reverse();
  }

  get prices(): boolean {
    return this.bands.length > 0;
  }

  /** Price one call by the highest band that starts below its prompt. */
  costNusd(prompt: number, output: number): number {
    for (const band of this.bands) {
      if (prompt > band.above || band.above === 0) {
        const total = this.perRequest + prompt * band.input + output * band.output;
        // A sum of whole numbers that are not negative is exact if it ends below 2^53.
        if (total > Number.MAX_SAFE_INTEGER) return this.exactly(prompt, output, band);
        const rest = total % this.scale;
        return (total - rest) / this.scale + (rest === 0 ? 0 : 1);
      }
    }
    return UNPRICED;
  }

  private exactly(prompt: number, output: number, band: Band): number {
    const total =
      BigInt(this.perRequest) +
      BigInt(prompt) * BigInt(band.input) +
      BigInt(output) * BigInt(band.output);
    const scale = BigInt(this.scale);
    const cost = (total + scale - 1n) / scale;
    return cost <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(cost) : UNPRICED;
  }
}

const NOTHING: PriceTable = { scale: 1n, perRequest: 0n, bands: [] };
const SAFE = BigInt(Number.MAX_SAFE_INTEGER);

/** Divide all of a table by what divides it: no price changes, and smaller numbers stay exact. */
function reduced(table: PriceTable): PriceTable {
  const starts = table.bands.map((band) => band.aboveTokens);
  const numbers = [
    table.scale,
    table.perRequest,
    ...table.bands.flatMap((b) => [b.input, b.output]),
  ];
  const sensible =
    table.scale > 0n &&
    starts[0] === 0n &&
    starts.every((start, index) => index === 0 || start > (starts[index - 1] ?? 0n)) &&
    numbers.every((number) => number >= 0n);
  if (!sensible) return NOTHING;
  const common = numbers.reduce(gcd);
  const small = {
    scale: table.scale / common,
    perRequest: table.perRequest / common,
    bands: table.bands.map((band) => ({
      aboveTokens: band.aboveTokens,
      input: band.input / common,
      output: band.output / common,
    })),
  };
  const fits = [...numbers.map((number) => number / common), ...starts].every((n) => n <= SAFE);
  return fits ? small : NOTHING;
}

function gcd(one: bigint, other: bigint): bigint {
  let [a, b] = [one, other];
  while (b !== 0n) [a, b] = [b, a % b];
  return a;
}
