/** Small parts by themselves: ids, addresses, usage, pages, the clock. */

import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { defaultAddress } from "../src/address.js";
import { SteadyClock } from "../src/clock.js";
import { uuid7 } from "../src/ids.js";
import { InvalidAsk, newAskId } from "../src/index.js";
import { halves, Pages } from "../src/pages.js";
import { duration, milliseconds } from "../src/requests.js";
import { readUsage } from "../src/usage.js";

const folder = mkdtempSync(join(tmpdir(), "costd-ts-"));
after(() => rmSync(folder, { recursive: true }));

test("an id is a UUIDv7 of its time", () => {
  const noise = Uint8Array.from([0xfc, 0xc3, 0xd8, 0xc4, 0xdc, 0x0c, 0x0c, 0x07, 0x39, 0x8f]);
  // The time of the example in RFC 9562, appendix A.6.
  assert.equal(uuid7(0x017f22e279b0, noise), "017f22e2-79b0-7cc3-98c4-dc0c0c07398f");
  assert.notEqual(newAskId(), newAskId());
});

test("the address is what the environment says, else a socket that this user's daemon made", async () => {
  assert.equal(defaultAddress({ COSTD_ADDRESS: "host:1", COSTD_SOCKET: "/x" }), "host:1");
  assert.equal(defaultAddress({ COSTD_SOCKET: "/x/costd.sock" }), "unix:/x/costd.sock");
  const isRoot = process.geteuid?.() === 0;
  const runtime = { XDG_RUNTIME_DIR: folder };
  assert.equal(defaultAddress(runtime), "unix:/run/costd/costd.sock");
  mkdirSync(join(folder, "costd"));
  const server = createServer().listen(join(folder, "costd/costd.sock"));
  await new Promise((resolve) => server.once("listening", resolve));
  const own = `unix:${folder}/costd/costd.sock`;
  assert.equal(defaultAddress(runtime), isRoot ? "unix:/run/costd/costd.sock" : own);
  server.close();
});

test("usage is read as providers state it, absent stays absent", () => {
  const openai = readUsage({
    usage: {
      prompt_tokens: 100,
      completion_tokens: 20,
      prompt_tokens_details: { cached_tokens: 60, audio_tokens: 3 },
      completion_tokens_details: { reasoning_tokens: 5 },
    },
  });
  assert.deepEqual(
    [openai.promptTokens, openai.cachedTokens, openai.outputTokens, openai.reasoningTokens],
    [100n, 60n, 20n, 5n],
  );
  assert.deepEqual(openai.units, { input_audio_tokens: 3n });
  const responses = readUsage({
    input_tokens: 100,
    input_tokens_details: { cached_tokens: 60 },
    output_tokens: 20,
    output_tokens_details: { reasoning_tokens: 5 },
  });
  assert.deepEqual([responses.promptTokens, responses.cachedTokens], [100n, 60n]);
  const anthropic = readUsage({
    input_tokens: 10,
    cache_read_input_tokens: 60,
    cache_creation_input_tokens: 30,
    output_tokens: 20,
  });
  assert.deepEqual(
    [anthropic.promptTokens, anthropic.cachedTokens, anthropic.cacheWriteTokens],
    [100n, 60n, 30n],
  );
  assert.equal(anthropic.reasoningTokens, undefined);
  assert.equal(readUsage(anthropicZero).outputTokens, 0n);
  assert.throws(() => readUsage({ cost: 3 }), InvalidAsk);
  assert.throws(() => readUsage(undefined, { promptTokens: 0.5 }), /promptTokens is 0.5/);
});

const anthropicZero = { input_tokens: 0, output_tokens: 0 };

test("durations go to the wire and back to the nanosecond", () => {
  for (const ms of [0, 1, 12.5, 999.999999, 1_000, 61_234.000001]) {
    assert.equal(milliseconds(duration("ttlMs", ms)), ms);
  }
  assert.deepEqual(duration("ttlMs", 999.9999999), { seconds: 1n, nanos: 0 });
  assert.throws(() => duration("ttlMs", -1), /ttlMs is -1/);
  assert.throws(() => duration("ttlMs", Number.NaN), InvalidAsk);
});

test("pages are read and written as 64-bit words, and others are refused", () => {
  const page = (name: string, words: bigint[], magic = "costdpg1") => {
    const bytes = Buffer.alloc(words.length * 8 + 8);
    bytes.write(magic);
    for (const [index, word] of words.entries()) bytes.writeBigInt64LE(word, index * 8 + 8);
    writeFileSync(join(folder, name), bytes);
    return join(folder, name);
  };
  const rest = new Array<bigint>(6).fill(0n);
  const generation = 2n ** 40n + 3n;
  const daemon = page("daemon", [generation, ...rest]);
  const client = page("client", [2n, ...rest, 77n, ...rest, 0n, 88n, ...rest, 0n]);
  const pages = new Pages(daemon, client);
  assert(pages.isGeneration(...halves(generation)));
  assert(!pages.isGeneration(...halves(generation + 1n)));
  assert(pages.isSerial(0, ...halves(77n)) && pages.isSerial(1, ...halves(88n)));
  pages.write(1, 1, 2 ** 52 + 5, 2 ** 33);
  const other = new Pages(daemon, client);
  assert(other.isSerial(0, ...halves(77n)));
  page("daemon", [generation + 1n, ...rest]);
  assert(pages.isGeneration(...halves(generation + 1n)));
  const refused: [string, RegExp][] = [
    [page("magic", [2n, ...rest], "nonsense"), /no page of costd/],
    [page("short", [200n, ...rest]), /too short for its 200 slots/],
    [join(folder, "absent"), /ENOENT/],
  ];
  for (const [path, says] of refused) assert.throws(() => new Pages(daemon, path), says);
  pages.close();
  other.close();
});

test("the steady clock never goes back, and does not follow the wall clock", (t) => {
  const clock = new SteadyClock();
  const beganMs = clock.now();
  const real = Date.now;
  t.mock.method(Date, "now", () => real() + 3_600_000);
  const laterMs = clock.now();
  assert(laterMs >= beganMs && laterMs - beganMs < 600_000);
});
