#!/usr/bin/env node
// npm's solc under the command line of the native one, as far as forge uses it.

import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";

const solc = createRequire(import.meta.url)("solc");

if (process.argv.includes("--version")) {
  console.log(`solc, the solidity compiler commandline interface\nVersion: ${solc.version()}`);
} else if (process.argv.includes("--standard-json")) {
  // Not console.log: a pipe would get no more than its first 64 KiB before the process ends.
  writeFileSync(1, solc.compile(readFileSync(0, "utf8")));
} else {
  console.error("solc.mjs: only --version and --standard-json");
  process.exitCode = 1;
}
