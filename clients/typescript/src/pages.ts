/**
 * The two small files that daemon and client share; docs/reference/allowances.md, "Pages".
 *
 * Node maps no files. Both sides read and write them through the kernel's page cache instead, so
 * that each sees what the other wrote as soon as it is written, and what was written outlives the
 * process.
 */

import { closeSync, fstatSync, openSync, readSync, writeSync } from "node:fs";
import { endianness } from "node:os";

const MAGIC = Buffer.from("costdpg1").readBigInt64LE();
const WORD_BYTES = 8;
const HEAD_WORDS = 8;
const SLOT_WORDS = 8;
const HEAD_BYTES = HEAD_WORDS * WORD_BYTES;
const SUMS_BYTES = 3 * WORD_BYTES;
const HIGH = 2 ** 32;

/** Words are written in the machine's own order; only Linux was measured and tested. */
export const CAN_SHARE = process.platform === "linux" && endianness() === "LE";

/** Both pages, open. */
export class Pages {
  readonly slotsCount: number;
  private readonly daemon: number;
  private readonly client: number;
  private readonly head = new Uint32Array(4);
  private readonly headBytes = new Uint8Array(this.head.buffer);
  private readonly word = new Uint32Array(2);
  private readonly wordBytes = new Uint8Array(this.word.buffer);
  private readonly sums = new Uint32Array(6);
  private readonly sumsBytes = new Uint8Array(this.sums.buffer);

  /** Errors: whatever says that the files cannot be opened, or are not what they should be. */
  constructor(daemonPage: string, clientPage: string) {
    this.daemon = openSync(daemonPage, "r");
    try {
      this.client = openSync(clientPage, "r+");
    } catch (error) {
      closeSync(this.daemon);
      throw error;
    }
    try {
      readHead(this.daemon, daemonPage);
      this.slotsCount = readHead(this.client, clientPage);
      const needed = HEAD_BYTES + this.slotsCount * SLOT_WORDS * WORD_BYTES;
      if (this.slotsCount < 0 || fstatSync(this.client).size < needed) {
        throw new Error(`${clientPage} is too short for its ${this.slotsCount} slots`);
      }
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** Whether the daemon's page holds this generation, in two halves. */
  isGeneration(low: number, high: number): boolean {
    const { head } = this;
    return (
      readSync(this.daemon, this.headBytes, 0, 16, 0) === 16 && head[2] === low && head[3] === high
    );
  }

  /** Whether a slot's first word is this serial, in two halves. */
  isSerial(slot: number, low: number, high: number): boolean {
    const { word } = this;
    return (
      readSync(this.client, this.wordBytes, 0, WORD_BYTES, slotBytes(slot)) === WORD_BYTES &&
      word[0] === low &&
      word[1] === high
    );
  }

  /** Write how far an allowance was drawn. Errors: whatever the disk says. */
  write(slot: number, callsCount: number, amountNusd: number, tokensCount: number): void {
    const { sums } = this;
    sums[0] = callsCount;
    sums[1] = callsCount / HIGH;
    sums[2] = amountNusd;
    sums[3] = amountNusd / HIGH;
    sums[4] = tokensCount;
    sums[5] = tokensCount / HIGH;
    const at = slotBytes(slot) + WORD_BYTES;
    if (writeSync(this.client, this.sumsBytes, 0, SUMS_BYTES, at) !== SUMS_BYTES) {
      throw new Error("the client's page was cut short");
    }
  }

  close(): void {
    closeSync(this.daemon);
    closeSync(this.client);
  }
}

/** Split a whole number of 64 bits into halves, lower first. */
export function halves(word: bigint): [number, number] {
  return [Number(BigInt.asUintN(32, word)), Number(BigInt.asUintN(32, word >> 32n))];
}

function slotBytes(slot: number): number {
  return HEAD_BYTES + slot * SLOT_WORDS * WORD_BYTES;
}

/** Check the first word of a page, and return the second. */
function readHead(file: number, path: string): number {
  const head = Buffer.alloc(16);
  if (readSync(file, head, 0, 16, 0) !== 16 || head.readBigInt64LE() !== MAGIC) {
    throw new Error(`${path} is no page of costd`);
  }
  return Number(head.readBigInt64LE(8));
}
