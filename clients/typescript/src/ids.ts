/** Ids that callers choose: UUID version 7, sorted by the time they were made. */

import { randomBytes } from "node:crypto";

/**
 * Compose a UUIDv7 of a time and ten random bytes.
 *
 * Source: RFC 9562, section 5.7.
 */
export function uuid7(unixMs: number, noise: Uint8Array): string {
  const bytes = Buffer.alloc(16);
  bytes.writeUIntBE(unixMs, 0, 6);
  bytes.set(noise.subarray(0, 10), 6);
  bytes[6] = 0x70 | ((bytes[6] ?? 0) & 0x0f);
  bytes[8] = 0x80 | ((bytes[8] ?? 0) & 0x3f);
  const hex = bytes.toString("hex");
  return [
    hex.slice(0, 8),
    hex.slice(8, 12),
    hex.slice(12, 16),
    hex.slice(16, 20),
    hex.slice(20),
  ].join("-");
}

/** Make an ask id that nobody else makes. */
export function newAskId(): string {
  return uuid7(Date.now(), randomBytes(10));
}
