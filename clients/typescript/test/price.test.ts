/** Holds priced in the process are the daemon's, to the nano-dollar. */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Client } from "../src/index.js";
import { PriceLine, UNPRICED } from "../src/price.js";
import { Daemon, until } from "./daemon.js";

/** Reproducible chance: the same numbers in each run. */
class Chance {
  constructor(private state: number) {}

  below(most: number): number {
    this.state = (Math.imul(this.state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((this.state / 2 ** 32) * most);
  }

  /** Small and large numbers alike. */
  upTo(most: number): number {
    return this.below(Math.floor(most ** (this.below(1_000) / 999)) + 1);
  }
}

test("whole numbers below 2^53 price as exactly as bigints do", () => {
  const chance = new Chance(7);
  let unpriced = 0;
  for (let round = 0; round < 20_000; round += 1) {
    const starts = [0, 1 + chance.upTo(200_000), 200_001 + chance.upTo(1e6)];
    const bands = starts.slice(0, 1 + chance.below(3)).map((above) => ({
      aboveTokens: BigInt(above),
      input: BigInt(chance.upTo(1e12)),
      output: BigInt(chance.upTo(1e12)),
    }));
    const scale = BigInt(1 + chance.upTo(1e9));
    const table = { scale, perRequest: BigInt(chance.upTo(1e15)), bands };
    const [prompt, output] = [chance.upTo(1e7), chance.upTo(1e6)];
    const band = bands.findLast(
      (one) => one.aboveTokens === 0n || BigInt(prompt) > one.aboveTokens,
    );
    assert(band !== undefined);
    const total = table.perRequest + BigInt(prompt) * band.input + BigInt(output) * band.output;
    const exact = (total + scale - 1n) / scale;
    const cost = new PriceLine(table).costNusd(prompt, output);
    if (exact <= BigInt(Number.MAX_SAFE_INTEGER)) assert.equal(BigInt(cost), exact);
    else assert.equal(cost, UNPRICED);
    unpriced += cost === UNPRICED ? 1 : 0;
  }
  assert(unpriced > 0 && unpriced < 10_000);
});

test("a table that makes no sense prices nothing", () => {
  const band = { aboveTokens: 0n, input: 1n, output: 1n };
  const good = { scale: 1n, perRequest: 0n, bands: [band] };
  assert.equal(new PriceLine(good).costNusd(1, 1), 2);
  for (const bad of [
    undefined,
    { ...good, scale: 0n },
    { ...good, bands: [] },
    { ...good, bands: [{ ...band, aboveTokens: 1n }] },
    { ...good, bands: [band, band] },
    { ...good, bands: [{ ...band, input: -1n }] },
    { ...good, scale: 3n, perRequest: 2n ** 60n },
  ]) {
    assert.equal(new PriceLine(bad).prices, false);
    assert.equal(new PriceLine(bad).costNusd(1, 1), UNPRICED);
  }
});

const POLICY = `\
version: 1
tiers:
  premium: {models: [google/gemini-2.5-pro, openai/gpt-4o, odd/one]}
prices:
  - {models: odd/one, input: $0.123457, output: $9.876543, request: $0.0001}
task_classes: {draft: {}}
default_task_class: draft
budgets: [{id: all, window: total, limit: $1000000}]
allowance: {for: 5s}
`;
const MODELS = ["google/gemini-2.5-pro", "openai/gpt-4o", "odd/one"];

let daemon: Daemon;
let client: Client;

before(async () => {
  daemon = await new Daemon(() => POLICY).start();
  client = new Client({ address: daemon.address, caller: "prices" });
});

after(async () => {
  await client.close();
  await daemon.close();
});

for (const model of MODELS) {
  test(`what a draw of ${model} holds is what the daemon would hold`, async () => {
    const [provider, name] = model.split("/");
    const kind = { provider, model: name, acceptableModels: [model] };
    const scope = client.scope(kind);
    const chance = new Chance(11);
    for (let round = 0; round < 120; round += 1) {
      const amounts = { promptTokens: chance.upTo(900_000), maxOutputTokens: chance.upTo(60_000) };
      const { decision } = await client.explain({ ...kind, ...amounts });
      const drawn = await until(
        async () => {
          const found = await scope.admit(amounts);
          await (found.allowed ? client.void(found) : undefined);
          // What is too large for any allowance is asked of the daemon, rightly.
          return found.source === "allowance" || !found.allowed ? found : undefined;
        },
        `a draw of ${JSON.stringify(amounts)}`,
      );
      assert.equal(
        drawn.holdNusd,
        drawn.allowed ? decision?.holdNusd : 0n,
        JSON.stringify(amounts),
      );
      assert(drawn.allowed || decision?.verdict !== 1);
    }
  });
}
