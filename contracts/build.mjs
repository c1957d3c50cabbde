// Compiles src/*.sol with npm's solc and writes one artifact for each contract that is deployed.
//
//   node build.mjs           writes artifacts/*.json
//   node build.mjs --check   writes nothing; fails where the committed artifacts differ from the sources
//
// Same sources, same compiler, same settings: same bytes. An artifact names the compiler and the settings.

import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const require = createRequire(import.meta.url);
const solc = require("solc");

const HERE = dirname(fileURLToPath(import.meta.url));
const DEPLOYED = ["DemoEuro", "MarketEscrow", "MarketTimelock", "MeterRegistry"];
const SETTINGS = {
  evmVersion: "prague",
  optimizer: { enabled: true, runs: 100000 },
  viaIR: true,
  outputSelection: { "*": { "*": ["abi", "evm.bytecode.object", "evm.deployedBytecode.object", "storageLayout"] } },
};

function read(path) {
  return { contents: readFileSync(join(HERE, "node_modules", path), "utf8") };
}

function compile() {
  const files = readdirSync(join(HERE, "src")).filter((name) => name.endsWith(".sol")).sort();
  const sources = Object.fromEntries(
    files.map((name) => [`src/${name}`, { content: readFileSync(join(HERE, "src", name), "utf8") }]),
  );
  const input = JSON.stringify({ language: "Solidity", sources, settings: SETTINGS });
  const output = JSON.parse(solc.compile(input, { import: read }));
  const complaints = output.errors ?? [];
  complaints.forEach((complaint) => console.error(complaint.formattedMessage));
  if (complaints.length > 0) {
    throw new Error(`solc: ${complaints.length} errors and warnings`);
  }
  checkLayout(output.contracts);
  return output.contracts;
}

// src/ClearedCredit.sol reads and writes balances and supply where OpenZeppelin has them; src/SettlementLimits.sol shares its
// slot with Pausable's flag.
function checkLayout(contracts) {
  const layout = contracts["src/MarketEscrow.sol"].MarketEscrow.storageLayout.storage;
  const at = (label) => layout.find((variable) => variable.label === label);
  if (at("_balances").slot !== "0" || at("_balances").offset !== 0) {
    throw new Error(`ERC20._balances is at slot ${at("_balances").slot}, not at 0: src/ClearedCredit.sol is wrong`);
  }
  if (at("_totalSupply").slot !== "2" || at("_totalSupply").offset !== 0) {
    throw new Error(`ERC20._totalSupply is at slot ${at("_totalSupply").slot}, not at 2: src/ClearedCredit.sol is wrong`);
  }
  if (at("_paused").slot !== at("_windowDebit").slot) {
    throw new Error("Pausable's flag and SettlementLimits are not in one slot");
  }
}

function artifact(contracts, name) {
  const { outputSelection, ...settings } = SETTINGS;
  const contract = contracts[`src/${name}.sol`][name];
  const openzeppelin = require("@openzeppelin/contracts/package.json").version;
  const document = {
    contract: name,
    source: `src/${name}.sol`,
    compiler: solc.version(),
    settings,
    openzeppelin,
    abi: contract.abi,
    bytecode: `0x${contract.evm.bytecode.object}`,
    deployed_bytes: contract.evm.deployedBytecode.object.length / 2,
  };
  return `${JSON.stringify(document, null, 1)}\n`;
}

function main() {
  const check = process.argv.includes("--check");
  const folder = join(HERE, "artifacts");
  const contracts = compile();
  const different = [];
  mkdirSync(folder, { recursive: true });
  for (const name of DEPLOYED) {
    const path = join(folder, `${name}.json`);
    const text = artifact(contracts, name);
    if (check) {
      if (!existsSync(path) || readFileSync(path, "utf8") !== text) different.push(name);
    } else {
      writeFileSync(path, text);
    }
  }
  if (different.length > 0) {
    console.error(`contracts/artifacts differ from contracts/src: ${different.join(", ")}. Run contracts/compile.sh`);
    process.exitCode = 1;
  } else {
    console.error(check ? "contracts: artifacts are reproduced" : `contracts: wrote ${DEPLOYED.join(", ")}`);
  }
}

main();
