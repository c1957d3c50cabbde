// Makes the golden vectors beside it with ethers, which shares no code with Peergrid:
//
//   (cd contracts && npm ci) && node tests/cases/eip712/make.mjs
//
// A case is a message as it crosses the wire, the key that signs it, and the digest and signature that ethers makes.

import { createRequire } from "node:module";
import { writeFileSync } from "node:fs";

const { Wallet, TypedDataEncoder, keccak256, toUtf8Bytes } = createRequire(
  new URL("../../../contracts/package.json", import.meta.url),
)("ethers");

const READING = [
  ["address", "meter"], ["uint32", "epoch"], ["uint64", "seq"], ["uint64", "takenAt"], ["uint64", "importWh"],
  ["uint64", "exportWh"], ["int32", "powerW"], ["uint8", "quality"],
];
const STEP = [["uint8", "side"], ["uint32", "energyWh"], ["int64", "limitPrice"], ["uint8", "minFillPercent"]];
const TYPES = {
  Reading: { Reading: READING },
  Readings: { Readings: [["Reading[]", "readings"]], Reading: READING },
  Order: {
    Order: [
      ["address", "meter"], ["bytes32", "feeder"], ["uint64", "intervalStart"], ["uint32", "version"],
      ["uint32", "firmImportWh"], ["uint32", "firmExportWh"], ["int32", "firmQVar"], ["Step[]", "steps"],
    ],
    Step: STEP,
  },
  Receipt: {
    Receipt: [
      ["address", "meter"], ["uint8", "kind"], ["uint64", "upTo"], ["uint8", "result"], ["uint64", "receivedAt"],
      ["bytes32", "digest"],
    ],
  },
  Binding: {
    Binding: [
      ["address", "meter"], ["address", "owner"], ["bytes32", "connectionPoint"], ["uint256", "nonce"],
      ["uint64", "deadline"],
    ],
  },
};
const DOMAINS = [
  { chainId: 1n, verifyingContract: "0x00000000000000000000000000000000000000aa" },
  { chainId: 2n ** 53n + 1n, verifyingContract: "0xfedcba9876543210fedcba9876543210fedcba98" },
];
const U32 = 2n ** 32n - 1n;
const U64 = 2n ** 64n - 1n;
const U256 = 2n ** 256n - 1n;
const I32 = 2n ** 31n - 1n;
const PRICE = 2n ** 53n;

const wallet = (role) => new Wallet(keccak256(toUtf8Bytes(`peergrid golden ${role}`)));
const meter = wallet("meter");
const market = wallet("market");
const owner = wallet("owner").address.toLowerCase();
const id = meter.address.toLowerCase();

const registers = [
  { epoch: 0n, seq: 0n, taken_at: 0n, import_wh: 0n, export_wh: 0n, power_w: 0n, quality: 0n },
  { epoch: 3n, seq: 96n, taken_at: 1466000100n, import_wh: 1234567n, export_wh: 89n, power_w: -4321n, quality: 1n },
  { epoch: U32, seq: U64, taken_at: U64, import_wh: U64, export_wh: U64, power_w: I32, quality: 255n },
];
const step = (side, energy_wh, limit_price, min_fill_percent) => ({ side, energy_wh, limit_price, min_fill_percent });
const orders = [
  { firm_import_wh: 0n, firm_export_wh: 0n, firm_q_var: 0n, version: 0n, steps: [] },
  {
    firm_import_wh: 812n, firm_export_wh: 0n, firm_q_var: -120n, version: 7n,
    steps: [step(0n, 250n, 300000n, 0n), step(1n, 1000n, -45000n, 50n)],
  },
  {
    firm_import_wh: 0n, firm_export_wh: U32, firm_q_var: I32, version: U32,
    steps: Array.from({ length: 16 }, (_, i) => step(BigInt(i % 2), BigInt(i + 1), i % 3 ? PRICE : -PRICE, 100n)),
  },
];

const MESSAGES = {
  reading: registers.map((entry) => ({ v: 1n, meter: id, ...entry })),
  readings: [registers.slice(1, 2), registers].map((readings) => ({ v: 1n, meter: id, readings })),
  order: orders.map((order, i) => ({
    v: 1n, meter: id, feeder: "rural3-noon", interval_start: 1466000100n + 900n * BigInt(i), ...order,
  })),
  receipt: [
    { v: 1n, meter: id, kind: 0n, up_to: U64, result: 0n, received_at: 1466000123n, digest: `0x${"ab".repeat(32)}` },
    { v: 1n, meter: id, kind: 1n, up_to: 0n, result: 2n, received_at: 0n, digest: `0x${"00".repeat(32)}` },
  ],
  binding: [
    { meter: id, owner, connection_point: keccak256(toUtf8Bytes("salt load:7")), nonce: 0n, deadline: 1466000100n },
    { meter: id, owner, connection_point: `0x${"ff".repeat(32)}`, nonce: U256, deadline: U64 },
  ],
};

const camel = (name) => name.replace(/_([a-z])/g, (_, letter) => letter.toUpperCase());

// The struct of a message: names in camel case, the feeder hashed, each reading of a list with its meter.
function struct(value, parent) {
  if (Array.isArray(value)) return value.map((item) => struct(item, parent));
  if (typeof value !== "object") return value;
  const fields = Object.entries(value).map(([name, field]) => {
    if (name === "feeder") return [name, keccak256(toUtf8Bytes(field))];
    return [camel(name), struct(field, value)];
  });
  return { ...(parent?.readings ? { meter: parent.meter } : {}), ...Object.fromEntries(fields) };
}

// JSON with integers of any size.
function json(value, indent = "") {
  const inner = `${indent} `;
  const list = (items, open, close) =>
    items.length ? `${open}\n${items.map((item) => inner + item).join(",\n")}\n${indent}${close}` : open + close;
  if (typeof value === "bigint") return value.toString();
  if (Array.isArray(value)) return list(value.map((item) => json(item, inner)), "[", "]");
  if (typeof value === "object") {
    return list(Object.entries(value).map(([name, field]) => `"${name}": ${json(field, inner)}`), "{", "}");
  }
  return JSON.stringify(value);
}

for (const [file, messages] of Object.entries(MESSAGES)) {
  const name = file[0].toUpperCase() + file.slice(1);
  const types = Object.fromEntries(
    Object.entries(TYPES[name]).map(([type, fields]) => [type, fields.map(([kind, field]) => ({ type: kind, name: field }))]),
  );
  const signer = file === "receipt" ? market : meter;
  const cases = [];
  for (const { chainId, verifyingContract } of DOMAINS) {
    const domain = { name: "Peergrid", version: "1", chainId, verifyingContract };
    for (const message of messages) {
      const { v, ...value } = struct(message);
      const fields = Object.fromEntries(types[name].map(({ name: field }) => [field, value[field]]));
      cases.push({
        domain: { chain_id: chainId, verifying_contract: verifyingContract },
        signer: { address: signer.address.toLowerCase(), secret: signer.privateKey },
        message,
        digest: TypedDataEncoder.hash(domain, types, fields),
        signature: await signer.signTypedData(domain, types, fields),
      });
    }
  }
  writeFileSync(new URL(`${file}.json`, import.meta.url), `${json(cases)}\n`);
}
