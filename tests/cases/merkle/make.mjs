// Makes trees.json with OpenZeppelin's own library: node tests/cases/merkle/make.mjs (after contracts/forge.sh).

import { writeFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(new URL("../../../contracts/package.json", import.meta.url));
const { StandardMerkleTree } = require("@openzeppelin/merkle-tree");

const TYPES = ["bytes16", "string", "uint64", "string"];
const CONTENTS = ["", "{}", '{"price":-118000}', `{"meter":"0x${"ab".repeat(20)}","wh":812}`, "µ".repeat(40), "x".repeat(32)];

function leaf(number) {
  const salt = `0x${(number * 7919 + 1).toString(16).padStart(32, "0")}`;
  return [salt, ["award", "reading", "posting"][number % 3], 1466000100 + 900 * number, CONTENTS[number % CONTENTS.length]];
}

const cases = [1, 2, 3, 4, 7, 12, 33].map((count) => {
  const values = Array.from({ length: count }, (_, number) => leaf(number));
  const tree = StandardMerkleTree.of(values, TYPES);
  return {
    root: tree.root,
    leaves: values.map((value, index) => ({ value, hash: tree.leafHash(value), proof: tree.getProof(index) })),
  };
});

writeFileSync(new URL("trees.json", import.meta.url), `${JSON.stringify(cases, null, 1)}\n`);
