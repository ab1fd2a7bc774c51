/** Reads what providers measured into `costd.v1.Usage`. */

import { InvalidAsk } from "./errors.js";
import { Usage } from "./pb/costd/v1/admission.js";

/** Counts in costd's own names; absent is unknown, zero is zero. */
export interface Counts {
  /** All tokens in, cached ones included. */
  promptTokens?: number | undefined;
  /** Of these, read from the provider's cache. */
  cachedTokens?: number | undefined;
  /** Of these, written to the provider's cache. */
  cacheWriteTokens?: number | undefined;
  /** All tokens out, reasoning included. */
  outputTokens?: number | undefined;
  reasoningTokens?: number | undefined;
  /** Any other unit of the price catalogue, by its name. */
  units?: Readonly<Record<string, number>> | undefined;
}

const TOKENS = [
  "promptTokens",
  "cachedTokens",
  "cacheWriteTokens",
  "outputTokens",
  "reasoningTokens",
] as const;

/** Where a provider says it, and the catalogue's name for it. */
const UNIT_PATHS: readonly (readonly [string, string, string])[] = [
  ["prompt_tokens_details", "audio_tokens", "input_audio_tokens"],
  ["completion_tokens_details", "audio_tokens", "output_audio_tokens"],
  ["cache_creation", "ephemeral_5m_input_tokens", "cache_write_5m_tokens"],
  ["cache_creation", "ephemeral_1h_input_tokens", "cache_write_1h_tokens"],
  ["server_tool_use", "web_search_requests", "web_searches"],
];

/**
 * Read usage as a provider's SDK or JSON body states it (OpenAI's chat, responses and embeddings,
 * Anthropic's messages, or a whole response with `usage` in it); `counts` overwrite.
 *
 * Errors: InvalidAsk if nothing in it is known, or a count is no whole number of at least 0.
 */
export function readUsage(provider: unknown, counts: Counts = {}): Usage {
  const read = provider === undefined || provider === null ? empty() : readProvider(provider);
  for (const name of TOKENS) {
    const count = counts[name];
    if (count !== undefined) read[name] = counted(name, count);
  }
  for (const [unit, count] of Object.entries(counts.units ?? {})) {
    read.units[unit] = counted(`units[${unit}]`, count);
  }
  return read;
}

/** Tell whether any count is stated. */
export function statesCounts(counts: Counts): boolean {
  return counts.units !== undefined || TOKENS.some((name) => counts[name] !== undefined);
}

function empty(): Usage {
  return Usage.fromPartial({});
}

function readProvider(stated: unknown): Usage {
  const usage = get(stated, "usage") ?? stated;
  let read: Usage;
  if (has(usage, "input_tokens")) read = readInputOutput(usage);
  else if (has(usage, "prompt_tokens") || has(usage, "output_tokens")) read = readChat(usage);
  else {
    throw new InvalidAsk(
      "usage: nothing in it is known here; pass promptTokens and outputTokens, or costNusd",
    );
  }
  for (const [group, name, unit] of UNIT_PATHS) {
    const count = get(get(usage, group), name);
    if (count) read.units[unit] = counted(`${group}.${name}`, count);
  }
  return read;
}

/** Read OpenAI's responses API, or Anthropic's, whose input excludes what was cached. */
function readInputOutput(usage: unknown): Usage {
  const read = empty();
  read.promptTokens = counted("input_tokens", get(usage, "input_tokens"));
  read.outputTokens = optional("output_tokens", get(usage, "output_tokens"));
  const inside = get(usage, "input_tokens_details");
  if (inside === undefined) {
    read.cachedTokens = optional("cached_tokens", get(usage, "cache_read_input_tokens"));
    read.cacheWriteTokens = optional("cache_write", get(usage, "cache_creation_input_tokens"));
    read.promptTokens += (read.cachedTokens ?? 0n) + (read.cacheWriteTokens ?? 0n);
  } else {
    read.cachedTokens = optional("cached_tokens", get(inside, "cached_tokens"));
    read.cacheWriteTokens = optional("cache_write_tokens", get(inside, "cache_write_tokens"));
  }
  const outside = get(usage, "output_tokens_details");
  const reasoning = get(outside, "reasoning_tokens") ?? get(outside, "thinking_tokens");
  read.reasoningTokens = optional("reasoning_tokens", reasoning);
  return read;
}

/** Read OpenAI's chat and embeddings APIs, and those modelled on them. */
function readChat(usage: unknown): Usage {
  const read = empty();
  read.promptTokens = optional("prompt_tokens", get(usage, "prompt_tokens"));
  const output = get(usage, "completion_tokens") ?? get(usage, "output_tokens");
  read.outputTokens = optional("completion_tokens", output);
  const inside = get(usage, "prompt_tokens_details") ?? usage;
  read.cachedTokens = optional("cached_tokens", get(inside, "cached_tokens"));
  read.cacheWriteTokens = optional("cache_write_tokens", get(inside, "cache_write_tokens"));
  const outside = get(usage, "completion_tokens_details") ?? usage;
  read.reasoningTokens = optional("reasoning_tokens", get(outside, "reasoning_tokens"));
  return read;
}

function get(container: unknown, name: string): unknown {
  if (typeof container !== "object" || container === null) return undefined;
  return (container as Record<string, unknown>)[name] ?? undefined;
}

function has(container: unknown, name: string): boolean {
  return get(container, name) !== undefined;
}

function optional(name: string, value: unknown): bigint | undefined {
  return value === undefined ? undefined : counted(name, value);
}

function counted(name: string, value: unknown): bigint {
  if (typeof value === "bigint" && value >= 0n && value < 2n ** 63n) return value;
  if (typeof value === "number" && Number.isSafeInteger(value) && value >= 0) return BigInt(value);
  throw new InvalidAsk(`usage.${name} is ${String(value)}; it must be a whole number from 0`);
}
