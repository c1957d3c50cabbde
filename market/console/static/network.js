// The feeder over the day: colours, slider, play, one element's values and history, and the table twin.
import { local } from "./local.js";

const panel = document.getElementById("network");
const names = panel && JSON.parse(document.getElementById("names").textContent);
const slider = document.getElementById("time");
const about = document.getElementById("about");
const shown = () => panel.querySelector("input[name=shown]:checked").value;
const groups = { bus: [], branch: [] };
let values = null;
let at = 0;
let chosen = null;
let playing = null;

const UNITS = { voltage: ["pu", 4, 1], loading: ["% of the limit", 1, 1], price: ["ct/kWh", 2, 1e4], energy: ["Wh", 0, 1] };
const OF = { bus: ["voltage", "price", "energy"], branch: ["loading"] };
const text = (value, key) => {
  if (value === null || value === undefined) return "–";
  const [unit, digits, by] = UNITS[key];
  return `${(value / by).toFixed(digits).replace("-", "−")} ${unit}`;
};
const valueAt = (key, index, time = at) => values[key][time]?.[index] ?? null;

function range(key) {
  let low = Infinity;
  let high = -Infinity;
  for (const row of values[key]) for (const value of row ?? []) if (value !== null) { low = Math.min(low, value); high = Math.max(high, value); }
  return [low, high];
}

// Deviations from a calm middle: voltage from 1 pu, price from the grid connection's, energy from nothing.
function busClass(key, index) {
  const value = valueAt(key, index);
  if (value === null) return "k-none";
  const slack = [...groups.bus].findIndex((group) => group.classList.contains("slack"));
  const middle = key === "voltage" ? 1 : key === "price" ? valueAt("price", slack) ?? 0 : 0;
  const [low, high] = ranges[key];
  const span = Math.max(high - middle, middle - low, 1e-9);
  const share = key === "price" ? (value - middle) / priceSpan : (value - middle) / span;
  const size = Math.min(3, Math.ceil(Math.abs(share) * 3 - 0.1));
  return size <= 0 ? "k-v0" : key === "energy" && share > 0 ? `k-e${size}` : `k-${share > 0 ? "h" : "l"}${size}`;
}

function branchClass(index) {
  const value = valueAt("loading", index);
  if (value === null) return "k-none w1";
  const width = value > 75 ? "w4" : value > 45 ? "w3" : value > 18 ? "w2" : "w1";
  return `${value > 100.01 ? "k-over" : value >= 99 ? "k-full" : value >= 70 ? "k-high" : "k-calm"} ${width}`;
}

let ranges = {};
let priceSpan = 1;

function paint() {
  const key = shown();
  slider.value = at;
  document.getElementById("at").textContent = local(values.starts[at]);
  document.getElementById("at").title = new Date(values.starts[at] * 1000).toISOString();
  slider.setAttribute("aria-valuetext", local(values.starts[at]));
  groups.bus.forEach((group, index) => {
    const slack = group.classList.contains("slack") ? " slack" : "";
    group.setAttribute("class", `bus${slack} ${key === "loading" || slack ? "k-v0" : busClass(key, index)}${chosen === group ? " on" : ""}`);
  });
  groups.branch.forEach((group, index) => group.setAttribute("class", `branch ${branchClass(index)}${chosen === group ? " on" : ""}`));
  legend(key);
  tell();
  if (panel.querySelector("details").open) twin();
}

function legend(key) {
  const [low, high] = ranges[key] ?? [0, 0];
  const sets = {
    voltage: [low < 1 && ["k-l3", `lower, down to ${text(low, key)}`], ["k-v0", "near 1 pu"], high > 1 && ["k-h3", `higher, up to ${text(high, key)}`]],
    price: [["k-l3", "cheaper than at the grid connection"], ["k-v0", "the same"], ["k-h3", "dearer"]],
    energy: [low < 0 && ["k-l3", `draws, down to ${text(low, key)}`], ["k-v0", "nothing"], high > 0 && ["k-e3", `feeds in, up to ${text(high, key)}`]],
    loading: [["k-calm", "below 70 %"], ["k-high", "from 70 %"], ["k-full", "at its limit"], ["k-over", "beyond"]],
  };
  document.getElementById("scale").replaceChildren(...sets[key].filter(Boolean).flatMap(([css, words]) => {
    const swatch = document.createElement("span");
    swatch.className = `swatch ${css}`;
    const item = document.createElement("span");
    item.className = "item";
    item.append(swatch, words);
    return [item];
  }), "wider lines carry more");
}

function tell() {
  if (!chosen) return;
  const { kind } = chosen.dataset;
  const index = Number(chosen.dataset.index);
  const parts = OF[kind].map((key) => `${key === "energy" ? "net energy" : key} ${text(valueAt(key, index), key)}`);
  const name = document.createElement("b");
  name.textContent = names[kind][index];
  about.replaceChildren(name, ...parts.map((part) => Object.assign(document.createElement("span"), { textContent: part })));
  const link = Object.assign(document.createElement("a"), { href: `/f/${names.market}/intervals/${values.starts[at]}`, textContent: "this interval" });
  about.append(link);
  history(kind, index);
}

function history(kind, index) {
  const key = OF[kind].includes(shown()) ? shown() : OF[kind][0];
  const series = values[key].map((row) => row?.[index] ?? null);
  const known = series.filter((value) => value !== null);
  const box = document.getElementById("history");
  if (!known.length) { box.replaceChildren(); return; }
  const low = Math.min(...known);
  const high = Math.max(...known);
  const x = (step) => (1000 * step) / series.length;
  const y = (value) => 108 - (96 * (value - low)) / (high - low || 1);
  let path = "";
  series.forEach((value, step) => { if (value !== null) path += `${path && series[step - 1] !== null ? "L" : "M"}${x(step).toFixed(1)} ${y(value).toFixed(1)}H${x(step + 1).toFixed(1)}`; });
  box.innerHTML = `<p></p><svg viewBox="0 0 1000 120" preserveAspectRatio="none" role="img"><path d="${path}"/><path class="now" d="M${x(at + 0.5)} 0V120"/></svg>`;
  const words = `${key === "energy" ? "Net energy" : key[0].toUpperCase() + key.slice(1)} of ${names[kind][index]} over the day: ${text(low, key)} to ${text(high, key)}`;
  box.querySelector("p").textContent = words;
  box.querySelector("svg").setAttribute("aria-label", words);
}

function twin() {
  const body = document.querySelector("#twin tbody");
  const row = (name, cells) => {
    const line = document.createElement("tr");
    const head = Object.assign(document.createElement("th"), { scope: "row", textContent: name });
    line.append(head, ...cells.map(([value, digits, by]) => Object.assign(document.createElement("td"), { className: "n", textContent: value === null ? "–" : (value / by).toFixed(digits).replace("-", "−") })));
    return line;
  };
  body.replaceChildren(
    ...names.bus.map((name, index) => row(name, [[valueAt("voltage", index), 4, 1], [null], [valueAt("price", index), 2, 1e4], [valueAt("energy", index), 0, 1]])),
    ...names.branch.map((name, index) => row(name, [[null], [valueAt("loading", index), 1, 1], [null], [null]])),
  );
}

function choose(group, focus = false) {
  chosen?.setAttribute("tabindex", "-1");
  chosen = group;
  chosen.setAttribute("tabindex", "0");
  if (focus) chosen.focus();
  paint();
}

function keys(event) {
  const list = [...groups.bus, ...groups.branch];
  const place = list.indexOf(event.target.closest("g[data-kind]"));
  if (place < 0) return;
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (step) { event.preventDefault(); choose(list[(place + step + list.length) % list.length], true); }
  else if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(list[place], true); }
}

function play() {
  const button = document.getElementById("play");
  if (playing) { clearInterval(playing); playing = null; } else {
    playing = setInterval(() => { at = (at + 1) % values.starts.length; paint(); }, 250);
  }
  button.textContent = playing ? "❚❚ Pause" : "▶ Play";
  button.setAttribute("aria-pressed", String(Boolean(playing)));
}

async function open() {
  for (const group of panel.querySelectorAll("g[data-kind]")) groups[group.dataset.kind][Number(group.dataset.index)] = group;
  groups.bus[0]?.setAttribute("tabindex", "0");
  const response = await fetch(panel.dataset.address);
  if (!response.ok) { about.textContent = `▲ The values could not be loaded (${response.status}).`; return; }
  values = await response.json();
  for (const key of Object.keys(UNITS)) ranges[key] = range(key);
  const slack = groups.bus.findIndex((group) => group.classList.contains("slack"));
  priceSpan = Math.max(1000, ...values.price.flatMap((row) => (row ? row.filter((v) => v !== null).map((v) => Math.abs(v - row[slack])) : [])));
  slider.max = values.starts.length - 1;
  const loads = values.loading.map((row) => (row ? Math.max(...row.map((v) => v ?? 0)) : -1));
  at = Math.max(0, loads.indexOf(Math.max(...loads)));
  slider.addEventListener("input", () => { at = Number(slider.value); paint(); });
  document.getElementById("play").addEventListener("click", play);
  panel.querySelectorAll("input[name=shown]").forEach((input) => input.addEventListener("change", paint));
  panel.querySelector("details").addEventListener("toggle", twin);
  const svg = document.getElementById("feeder");
  svg.addEventListener("keydown", keys);
  svg.addEventListener("click", (event) => { const group = event.target.closest("g[data-kind]"); if (group) choose(group); });
  svg.addEventListener("focusin", (event) => { const group = event.target.closest("g[data-kind]"); if (group && group !== chosen) choose(group); });
  paint();
  panel.dataset.ready = "";
}

if (panel) open();
