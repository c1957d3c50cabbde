// Judges a coverage report in lcov's format: node coverage.mjs REPORT PERCENT
//
// Only src/ counts. Lines of assembly do not: the compiler gives forge no positions in them, so they always show as
// not run. What they do is proved by halmos instead.

import { readFileSync } from "node:fs";

const [report, percent] = [process.argv[2], Number(process.argv[3])];

function assemblyLines(path) {
  const lines = new Set();
  let depth = 0;
  readFileSync(path, "utf8").split("\n").forEach((text, index) => {
    if (depth > 0) lines.add(index + 1);
    if (depth > 0 || /^\s*assembly\b/.test(text)) {
      depth += (text.match(/{/g) ?? []).length - (text.match(/}/g) ?? []).length;
    }
  });
  return lines;
}

let [found, hit, skipped, path] = [0, 0, new Set(), ""];
for (const line of readFileSync(report, "utf8").split("\n")) {
  if (line.startsWith("SF:")) {
    path = line.slice(3);
    skipped = path.startsWith("src/") ? assemblyLines(path) : null;
  }
  const data = /^DA:(\d+),(\d+)/.exec(line);
  if (!data || !skipped || skipped.has(Number(data[1]))) continue;
  found += 1;
  if (Number(data[2]) > 0) hit += 1;
  else console.error(`${path}:${data[1]} was not run`);
}
const covered = (100 * hit) / found;
console.error(`coverage: ${hit} of ${found} lines of src/, ${covered.toFixed(1)} %`);
if (!(covered >= percent)) process.exitCode = 1;
