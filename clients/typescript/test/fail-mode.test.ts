/** What happens to calls while the daemon is gone. */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import {
  type Admitted,
  Client,
  type ClientOptions,
  type Decision,
  OutboxFull,
  Unavailable,
} from "../src/index.js";
import { Daemon, until } from "./daemon.js";

const ASK = { model: "gpt-4o", labels: { team: "a" }, estimatedCostNusd: 1_000n };

let daemon: Daemon;
const clients: Client[] = [];

before(async () => {
  daemon = await new Daemon().start();
});

after(async () => {
  await Promise.all(clients.map((client) => client.close(1)));
  await daemon.close();
});

function connect(options: ClientOptions): Client {
  const common = { address: daemon.address, caller: "fails", allowances: false, timeoutMs: 150 };
  const client = new Client({ ...common, log: () => {}, ...options });
  clients.push(client);
  return client;
}

async function admitted(decision: Promise<Decision>): Promise<Admitted> {
  const found = await decision;
  assert(found.allowed);
  return found;
}

test("a hung daemon's answer that nobody received is settled, not charged twice", async () => {
  const client = connect({ failMode: "open" });
  await client.void(await admitted(client.admit(ASK)));
  daemon.signal("SIGSTOP");
  const decision = await client.admit(ASK);
  daemon.signal("SIGCONT");
  assert.equal(decision.source, "fail_open");
  await client.settle(decision, { costNusd: 7n });
  assert(await client.flush());
  const books = await until(async () => {
    const found = await daemon.books();
    return found.reserved === 0n ? found : undefined;
  }, "nothing is held");
  assert.equal(books.settled, 7n);
});

test("an outage, from the first refused call to the last one recorded", async (t) => {
  const closed = connect({});
  const open = connect({ failMode: "open" });
  const full = connect({ failMode: "open", outboxCapacityCount: 2 });
  const safe = connect({
    failMode: "safe",
    safeAllowanceNusd: 2_500n,
    priceGuessNusdPer1kTokens: 1_001n,
  });
  const earlier = await admitted(open.admit(ASK));
  const before = await daemon.books();
  await daemon.kill();

  await t.test("failing closed refuses every call with the reason", async () => {
    await assert.rejects(closed.admit(ASK), (error) => {
      assert(error instanceof Unavailable);
      assert.match(error.message, /cannot be reached .* fail mode is closed/);
      return true;
    });
  });

  await t.test("failing open lets calls go, but for the malformed ones", async () => {
    const settled = await open.admit(ASK);
    assert.deepEqual(
      [settled.source, settled.verdict, settled.decided],
      ["fail_open", "allow", false],
    );
    assert.equal((await open.settle(settled, { costNusd: 7n })).queued, true);
    await open.void(await open.admit(ASK));
    await open.guard({ ...ASK, estimatedCostNusd: 20n }, async (call) => call.sent());
    await assert.rejects(open.admit({ ...ASK, promptTokens: -1 }), /promptTokens is -1/);
    assert.equal(open.unheardCount, 2);
  });

  await t.test("a call admitted before the daemon died is settled later", async () => {
    assert.equal((await open.settle(earlier, { costNusd: 300n })).queued, true);
  });

  await t.test("no more calls go out than can be recorded", async () => {
    await full.void(await full.admit(ASK));
    await full.admit(ASK);
    await full.admit(ASK);
    await assert.rejects(full.admit(ASK), OutboxFull);
  });

  await t.test("failing safe spends a fixed amount, and nothing of unknown cost", async () => {
    assert.equal((await safe.admit(ASK)).source, "fail_safe");
    const second = await safe.admit(ASK);
    await assert.rejects(safe.admit(ASK), /takes 1000 nusd and 500 of the safe allowance are left/);
    await safe.void(second);
    const inTokens = { model: "gpt-4o", promptTokens: 1, maxOutputTokens: 999 };
    await safe.void(await safe.admit(inTokens)); // 1,001 nusd
    await assert.rejects(safe.admit({ ...ASK, estimatedCostNusd: 1_501n }), Unavailable);
    await assert.rejects(safe.admit({ model: "gpt-4o", promptTokens: 5 }), /cost is unknown/);
  });

  await daemon.start();

  await t.test("everything is recorded once when the daemon is back", async () => {
    assert(await open.flush());
    // The guarded call never said what it used: it is charged what it asked for.
    const books = await daemon.books();
    assert.equal(books.settled, before.settled + 300n + 7n + 20n);
    assert.equal(books.unadmitted, before.unadmitted + 7n + 20n);
    assert.equal(books.reserved, 0n);
    const costs = (await daemon.events()).map((one) => Number(one.cost_nusd));
    assert.deepEqual(
      costs.sort((one, other) => one - other),
      [7, 7, 20, 300],
    );
  });

  await t.test("and what may be spent undecided is whole again", async () => {
    // Its channel may wait a moment yet before it connects again.
    await until(async () => {
      const decision = await admitted(safe.admit(ASK));
      await safe.void(decision);
      return decision.source === "daemon";
    }, "the daemon decides again");
    await daemon.kill();
    assert.equal((await safe.admit({ ...ASK, estimatedCostNusd: 2_500n })).source, "fail_safe");
  });
});
