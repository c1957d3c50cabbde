// A meter that knows Peergrid from docs/messages alone: MQTT by mqtt.js, signatures by ethers.
//
//   node meter.mjs CONFIG.json
//
// At every gate it reads its registers and, where the gate is open, offers to buy. Each thing that the market
// signed for it is checked and printed as one line of JSON. It runs until standard input ends.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Wallet, keccak256, toUtf8Bytes, verifyTypedData } from "ethers";
import mqtt from "mqtt";

const config = JSON.parse(readFileSync(process.argv[2], "utf8"));
const schemas = Object.fromEntries(
  ["reading", "order", "receipt", "award"].map((name) => [
    name,
    JSON.parse(readFileSync(join(config.schemas, `${name}.schema.json`), "utf8")),
  ]),
);
const wallet = new Wallet(config.secret);
const me = wallet.address.toLowerCase();
const mine = `peergrid/v1/${config.feeder}/${me}`;
const say = (event) => process.stdout.write(JSON.stringify(event) + "\n");

const canonical = (value) => {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  const fields = Object.keys(value).sort().map((key) => `${JSON.stringify(key)}:${canonical(value[key])}`);
  return `{${fields.join(",")}}`;
};

// The struct that a message's signature signs, filled as the schema says.
const struct = (types, name, source, message) =>
  Object.fromEntries(
    types[name].map(({ name: field, type }) => {
      const snake = field.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
      if (field === "feeder") return [field, keccak256(toUtf8Bytes(message.feeder))];
      if (field === "content") {
        const { sig, ...unsigned } = message;
        return [field, keccak256(toUtf8Bytes(canonical(unsigned)))];
      }
      if (type.endsWith("[]")) {
        return [field, source[snake].map((item) => struct(types, type.slice(0, -2), item, message))];
      }
      return [field, source[snake]];
    }),
  );

const typedData = (kind, message) => {
  const { primaryType, types, domain } = schemas[kind]["x-eip712"];
  return [
    { ...domain, chainId: config.chainId, verifyingContract: config.registry },
    types,
    struct(types, primaryType, message, message),
  ];
};
const signed = async (kind, message) => ({ ...message, sig: await wallet.signTypedData(...typedData(kind, message)) });
const isMarkets = (kind, message) =>
  verifyTypedData(...typedData(kind, message), message.sig).toLowerCase() === config.market;

const client = mqtt.connect(`mqtt://127.0.0.1:${config.port}`, { clientId: me, protocolVersion: 4 });
let seq = 0;
let readAt = 0;
let ordered = 0;

const onGate = async (gate) => {
  if (gate.opens_at > readAt) {
    readAt = gate.opens_at;
    const reading = await signed("reading", {
      v: 1, meter: me, epoch: 0, seq: seq++, taken_at: readAt,
      import_wh: 1000 + 200 * seq, export_wh: 0, power_w: -800, quality: 0,
    });
    client.publish(`${mine}/reading`, JSON.stringify(reading), { qos: 1 });
  }
  if (gate.state === "OPEN" && gate.interval_start > ordered) {
    ordered = gate.interval_start;
    const order = await signed("order", {
      v: 1, meter: me, feeder: config.feeder, interval_start: ordered, version: 0,
      firm_import_wh: 150, firm_export_wh: 0, firm_q_var: 0,
      steps: [{ side: 0, energy_wh: 300, limit_price: gate.tariff.cap, min_fill_percent: 0 }],
    });
    client.publish(`${mine}/order`, JSON.stringify(order), { qos: 1 });
  }
};

client.on("connect", () =>
  client.subscribe([`${mine}/receipt`, `${mine}/award`, `peergrid/v1/${config.feeder}/gate`], { qos: 1 }, () =>
    say({ kind: "ready" }),
  ),
);
client.on("message", (topic, payload) => {
  const message = JSON.parse(payload.toString());
  const kind = topic.split("/").at(-1);
  if (kind === "gate") onGate(message);
  else say({ kind, isMarkets: isMarkets(kind, message), message });
});
process.stdin.resume().on("end", () => process.exit(0));
