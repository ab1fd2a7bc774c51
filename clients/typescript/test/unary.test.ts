/** Calls asked of a real daemon one by one. */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import {
  Client,
  Denied,
  IdReused,
  InvalidAsk,
  NotPermitted,
  ReservationClosed,
} from "../src/index.js";
import { Daemon } from "./daemon.js";

const GPT = { taskClass: "draft", model: "gpt-4o", labels: { team: "a" } };
const TOKENS = { promptTokens: 1_000, maxOutputTokens: 100 };
/** 1,000 tokens at 2,500 nusd, and 100 at 10,000. */
const HOLD_NUSD = 3_500_000n;

let daemon: Daemon;
let client: Client;

before(async () => {
  daemon = await new Daemon().start();
  client = new Client({ address: daemon.address, caller: "unary", allowances: false });
});

after(async () => {
  await client.close();
  await daemon.close();
});

test("an admitted call holds its money, and settles at what its usage costs", async () => {
  const decision = await client.admit({ ...GPT, ...TOKENS });
  assert.equal(decision.verdict, "allow");
  assert.equal(decision.reason, "OK");
  assert.equal(decision.source, "daemon");
  assert.equal(decision.holdNusd, HOLD_NUSD);
  assert.equal(decision.model, "gpt-4o");
  const settlement = await client.settle(decision, {
    usage: { prompt_tokens: 10, completion_tokens: 1 },
  });
  assert.equal(settlement.state, "settled");
  assert.equal(settlement.costNusd, 35_000n);
  assert.equal(settlement.queued, false);
});

test("settling again at the same cost changes nothing, and at another is refused", async () => {
  const decision = await client.admit({ ...GPT, estimatedCostNusd: 10n });
  await client.settle(decision, { costNusd: 7n });
  assert.equal((await client.settle(decision, { costNusd: 7n })).replayed, true);
  await assert.rejects(client.settle(decision, { costNusd: 8n }), ReservationClosed);
  await assert.rejects(client.void(decision), ReservationClosed);
});

test("the same ask gets the same answer, and another one under its id is refused", async () => {
  const ask = { ...GPT, estimatedCostNusd: 5n, askId: "a-chosen-id-of-mine" };
  const first = await client.admit(ask);
  const again = await client.admit(ask);
  assert.equal(again.replayed, true);
  assert.equal(again.reservationId, first.reservationId);
  await assert.rejects(client.admit({ ...ask, estimatedCostNusd: 6n }), (error) => {
    assert(error instanceof IdReused);
    assert.match(error.message, /estimated_cost_nusd/);
    return true;
  });
  await client.void(first);
});

test("a voided call costs nothing", async () => {
  const { settled } = await daemon.books();
  const decision = await client.admit({ ...GPT, ...TOKENS });
  assert.equal((await client.void(decision)).state, "voided");
  assert.equal((await daemon.books()).settled, settled);
});

test("a hold can be enlarged while the call runs", async () => {
  const decision = await client.admit({ ...GPT, ...TOKENS });
  const extension = await client.extend(decision, { additionalOutputTokens: 100, ttlMs: 5_000 });
  assert.equal(extension.extended, true);
  assert.equal(extension.holdNusd, HOLD_NUSD + 1_000_000n);
  await client.void(decision);
});

test("a refusal is an answer that says what binds and what would pass", async () => {
  const decision = await client.admit({ ...GPT, estimatedCostNusd: 500_000_000_000n });
  assert.equal(decision.verdict, "deny");
  assert.equal(decision.allowed, false);
  assert.equal(decision.reason, "BUDGET_EXHAUSTED");
  assert.equal(decision.binding?.kind, "budget");
  await assert.rejects(client.settle(decision, { costNusd: 1n }), /holds no money/);
});

test("what nobody asked for is charged once under its id", async () => {
  const call = { recordId: "a-batch-job-of-mine", ask: GPT, costNusd: 9n };
  const before = (await daemon.books()).settled;
  assert.equal((await client.record(call)).costNusd, 9n);
  assert.equal((await client.record(call)).replayed, true);
  assert.equal((await daemon.books()).settled, before + 9n);
});

test("explaining consumes nothing and shows every candidate", async () => {
  const before = await daemon.books();
  const explanation = await client.explain({ ...GPT, ...TOKENS });
  assert.equal(explanation.candidates[0]?.outcome, "chosen");
  assert.equal(explanation.candidates[0]?.model, "gpt-4o");
  assert.deepEqual(await daemon.books(), before);
});

test("a guarded call is settled with its usage, duration and outcome", async () => {
  const answer = await client.guard({ ...GPT, ...TOKENS }, async (call) => {
    call.sent();
    call.settle({ promptTokens: 20, outputTokens: 2 });
    return { text: `from ${call.model}`, call };
  });
  assert.equal(answer.text, "from gpt-4o");
  assert.equal(answer.call.settlement?.costNusd, 70_000n);
});

test("a guarded call that never left is voided, and its own error is what is thrown", async () => {
  const { settled } = await daemon.books();
  let id = "";
  const failing = client.guard({ ...GPT, ...TOKENS }, async (call) => {
    id = call.decision.reservationId;
    throw new RangeError("no credentials");
  });
  await assert.rejects(failing, RangeError);
  const request = { reservation_id: id, include_closed: true };
  const { reservations } = (await daemon.operate("ListReservations", request)) as {
    reservations: { state: string }[];
  };
  assert.equal(reservations[0]?.state, "RESERVATION_STATE_VOIDED");
  assert.equal((await daemon.books()).settled, settled);
});

test("a guarded call that was sent and failed stays held", async () => {
  const { reserved } = await daemon.books();
  const failing = client.guard({ ...GPT, estimatedCostNusd: 11n }, async (call) => {
    call.sent();
    throw new Error("connection reset");
  });
  await assert.rejects(failing, /connection reset/);
  assert.equal((await daemon.books()).reserved, reserved + 11n);
});

test("a guarded call that is refused throws and runs nothing", async () => {
  const refused = client.guard({ ...GPT, estimatedCostNusd: 500_000_000_000n }, async () => {
    assert.fail("it must not run");
  });
  await assert.rejects(refused, (error) => {
    assert(error instanceof Denied);
    assert.equal(error.decision.reason, "BUDGET_EXHAUSTED");
    assert.match(error.message, /BUDGET_EXHAUSTED: .*\[budget all\]/);
    return true;
  });
});

test("usage so far is reported once a second while a call streams, and a stop is told", async () => {
  const labels = { team: "streams" };
  const ask = { ...GPT, ...TOKENS, labels };
  await client.guard(ask, async (call) => {
    const first = await call.progress({ outputTokens: 10 });
    assert.equal(first?.reportedNusd, 100_000n);
    assert.equal(await call.progress({ outputTokens: 20 }), undefined);
    const kill_id = "stop-the-stream";
    const scoped = { scope: labels, mode: "deny_all", reason: "test", actor: "me" };
    await daemon.operate("EngageKill", { kill_id, ...scoped });
    const stopped = await call.extend({ additionalOutputTokens: 10 });
    assert.deepEqual([stopped.extended, stopped.directives?.stop], [false, true]);
    await daemon.operate("ReleaseKill", { kill_id, actor: "me", reason: "done" });
    call.settle({ promptTokens: 10, outputTokens: 20 });
  });
});

const MALFORMED: [string, object, RegExp][] = [
  ["money as a float", { estimatedCostNusd: 0.5 }, /bigint of nano-USD/],
  ["negative money", { estimatedCostNusd: -1n }, /estimatedCostNusd is -1/],
  ["tokens that are no whole number", { promptTokens: 1.5 }, /promptTokens is 1.5/],
  ["too many tokens", { promptTokens: 1e13 }, /promptTokens/],
  ["a short id", { estimatedCostNusd: 1n, askId: "short" }, /askId has 5 characters/],
  ["a reserved label", { estimatedCostNusd: 1n, labels: { model: "x" } }, /field of its own/],
  ["a label that cannot be printed", { estimatedCostNusd: 1n, labels: { a: "\n" } }, /printed/],
  ["an unknown class", { estimatedCostNusd: 1n, taskClass: "nonsense" }, /nonsense/],
];

for (const [what, ask, says] of MALFORMED) {
  test(`an ask with ${what} is refused with its field, and never fails open`, async () => {
    const open = new Client({ address: daemon.address, caller: "unary", failMode: "open" });
    await assert.rejects(open.admit({ model: "gpt-4o", ...ask }), (error) => {
      assert(error instanceof InvalidAsk || error instanceof NotPermitted);
      assert.match(error.message, says);
      return true;
    });
    await open.close();
  });
}

test("a caller who gives up gets his own reason, and what was held is released", async () => {
  const { reserved } = await daemon.books("teams");
  const signal = AbortSignal.abort(new Error("changed my mind"));
  await assert.rejects(client.admit({ ...GPT, ...TOKENS }, { signal }), /changed my mind/);
  assert(await client.flush());
  assert.equal((await daemon.books("teams")).reserved, reserved);
});
