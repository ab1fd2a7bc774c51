/** What the compiler says of programs that use the client. */

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";

const PACKAGE = join(import.meta.dirname, "../..");
const START = `import { Client, type Decision } from "costd-client";
const client = new Client({ failMode: "closed" });
const decision: Decision = await client.admit({ model: "m", estimatedCostNusd: 5n });
`;

let folder: string;

before(() => {
  // Below the package, so that its own name is found.
  folder = mkdtempSync(join(PACKAGE, "build", "sample-"));
  const options = {
    module: "nodenext",
    target: "es2023",
    strict: true,
    noEmit: true,
    types: ["node"],
    skipLibCheck: true,
  };
  writeFileSync(
    join(folder, "tsconfig.json"),
    JSON.stringify({ compilerOptions: options, include: ["*.mts"] }),
  );
});

after(() => rmSync(folder, { recursive: true }));

function compile(): string[] {
  const tsc = join(PACKAGE, "node_modules/.bin/tsc");
  const said = spawnSync(tsc, ["--pretty", "false", "-p", folder], { encoding: "utf8" });
  return said.stdout.split("\n");
}

const SAMPLES: [string, string, RegExp | undefined][] = [
  [
    "the usual program",
    `if (!decision.allowed) console.log(decision.reason, decision.binding?.rule);
     else await client.settle(decision, { usage: { prompt_tokens: 1, completion_tokens: 1 } });
     const text: string = await client.guard({ model: "m", promptTokens: 1 }, async (call) => {
       call.settle({ promptTokens: 1, outputTokens: call.maxOutputTokens ?? 1 });
       return call.model;
     });
     switch (decision.verdict) {
       case "allow": case "degrade": { const yes: true = decision.allowed; console.log(yes, text); break; }
       case "deny": { const no: false = decision.allowed; console.log(no); break; }
       default: decision satisfies never;
     }`,
    undefined,
  ],
  [
    "money as a number",
    "await client.settle(decision, { costNusd: 0.5 });",
    /'number' is not assignable to type 'bigint'/,
  ],
  [
    "a fail mode that is none",
    'new Client({ failMode: "maybe" });',
    /is not assignable to type 'FailMode/,
  ],
  ["a misspelt field", 'await client.admit({ modle: "m" });', /'modle' does not exist/],
];

test("every program in the README compiles", () => {
  const readme = readFileSync(join(PACKAGE, "README.md"), "utf8");
  const programs = [...readme.matchAll(/```ts\n(.*?)```/gs)].map(([, code]) => code ?? "");
  assert(programs.length >= 3);
  for (const [index, code] of programs.entries())
    writeFileSync(join(folder, `r${index}.mts`), code);
  const lines = compile().filter((line) => /\br\d+\.mts/.test(line));
  assert.deepEqual(lines, []);
});

test("usage that is right compiles, and each mistake is told", () => {
  for (const [index, [, code]] of SAMPLES.entries()) {
    writeFileSync(join(folder, `s${index}.mts`), `${START}${code}\n`);
  }
  const said = compile();
  for (const [index, [what, , says]] of SAMPLES.entries()) {
    const lines = said.filter((line) => line.includes(`s${index}.mts`));
    if (says === undefined) assert.deepEqual(lines, [], what);
    else assert.match(lines.join("\n"), says, what);
  }
});
