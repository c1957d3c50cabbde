// What every page does: local times, tables that sort and filter, live refresh, fragments, print.

import { local } from "./local.js";

function localise(root) {
  for (const element of root.querySelectorAll("time[data-shape]:not([data-local])")) {
    element.textContent = local(Date.parse(element.dateTime) / 1000, element.dataset.shape);
    element.dataset.local = "";
  }
}

const valueOf = (cell) => {
  const text = cell.dataset.value ?? cell.textContent.trim();
  const number = Number(text.replace(/[\u202f\s]/g, "").replace("−", "-"));
  return text !== "" && !Number.isNaN(number) ? number : text;
};

function sortable(table) {
  table.querySelectorAll("thead th").forEach((head, column) => {
    if (head.querySelector("button")) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => sort(table, column, head.getAttribute("aria-sort") === "descending" ? "ascending" : "descending"));
  });
}

function sort(table, column, direction) {
  const heads = table.querySelectorAll("thead th");
  heads.forEach((head) => head.removeAttribute("aria-sort"));
  heads[column].setAttribute("aria-sort", direction);
  const sign = direction === "ascending" ? 1 : -1;
  const rows = [...table.tBodies[0].rows].map((row) => [valueOf(row.cells[column]), row]);
  rows.sort(([a], [b]) => sign * (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b))));
  table.tBodies[0].append(...rows.map(([, row]) => row));
}

function filterable(input) {
  const table = document.getElementById(input.dataset.filter);
  const count = document.querySelector(`[data-count="${input.dataset.filter}"]`);
  const whole = count?.textContent;
  input.addEventListener("input", () => {
    const wanted = input.value.trim().toLowerCase();
    let shown = 0;
    for (const row of table.tBodies[0].rows) {
      row.hidden = wanted !== "" && !row.textContent.toLowerCase().includes(wanted);
      shown += !row.hidden;
    }
    if (count) count.textContent = wanted ? `${shown} of ${whole}` : whole;
  });
}

function prepare(root) {
  localise(root);
  root.querySelectorAll("table[data-sort]").forEach(sortable);
  root.querySelectorAll("[data-filter]").forEach(filterable);
  root.querySelectorAll("[data-print]").forEach((button) => button.addEventListener("click", () => print()));
  root.querySelectorAll("form[data-fragment]").forEach((form) => form.addEventListener("submit", (event) => {
    event.preventDefault();
    inject(form);
  }));
}

async function load(address) {
  const response = await fetch(address, { headers: { accept: "text/html" } });
  if (!response.ok) throw new Error(`${response.status}`);
  return new DOMParser().parseFromString(await response.text(), "text/html");
}

async function inject(form) {
  const button = form.querySelector("button");
  const words = button.textContent;
  button.textContent = "Working …";
  button.setAttribute("aria-disabled", "true");
  const address = new URL(location.href);
  for (const [name, value] of new FormData(form)) address.searchParams.set(name, value);
  try {
    const target = document.getElementById(form.dataset.fragment);
    const found = (await load(address)).getElementById(form.dataset.fragment);
    target.replaceChildren(...found.childNodes);
    prepare(target);
    target.querySelector("form button")?.focus();
    say(target.querySelector("[role=status] strong")?.textContent ?? "");
  } catch (error) {
    button.textContent = `${words} (failed: ${error.message})`;
    button.removeAttribute("aria-disabled");
  }
}

function say(words) {
  document.getElementById("said").textContent = words;
}

// Live: an event says that something changed; the parts that show it are asked for again, at most once a second.
const REFRESH_MS = 1000;
let waiting = null;

function refreshSoon() {
  waiting ??= setTimeout(async () => {
    try { await refresh(); } catch { /* the next event tries again */ }
    waiting = null;
  }, REFRESH_MS);
}

const typing = (part) => (part.contains(document.activeElement) && document.activeElement.matches("input, select"))
  || [...part.querySelectorAll("input[name=reason]")].some((input) => input.value !== "");

async function refresh() {
  const fresh = await load(location.href);
  for (const part of document.querySelectorAll("[data-live]")) {
    const found = fresh.getElementById(part.id);
    if (!found) { location.reload(); return; }
    if (typing(part)) continue;
    const held = part.contains(document.activeElement) ? document.activeElement : null;
    const key = held?.getAttribute("href");
    const sorted = [...part.querySelectorAll("table")].map((table) => table.querySelector("th[aria-sort]"));
    const scrolled = [...part.querySelectorAll(".scroll")].map((place) => place.scrollTop);
    part.replaceChildren(...found.childNodes);
    prepare(part);
    part.querySelectorAll("table").forEach((table, index) => {
      if (sorted[index]) sort(table, sorted[index].cellIndex, sorted[index].getAttribute("aria-sort"));
    });
    part.querySelectorAll(".scroll").forEach((place, index) => { place.scrollTop = scrolled[index] ?? 0; });
    if (key) part.querySelector(`a[href="${CSS.escape(key)}"]`)?.focus();
  }
  // What the page gained, like an interval's clearing, comes with the whole page.
  if (fresh.querySelectorAll("main > section").length !== document.querySelectorAll("main > section").length) location.reload();
  document.dispatchEvent(new CustomEvent("refreshed"));
}

function listen(market, part) {
  const source = new EventSource(`/api/v1/feeders/${market}/events`);
  const heard = new Set();
  source.addEventListener("interval", (event) => {
    const content = JSON.parse(event.data), change = `${content.interval_start}/${content.number}`;
    if (heard.has(change)) return;  // after a cut some come again
    heard.add(change);
    if (part.dataset.start && Number(part.dataset.start) !== content.interval_start) return;
    if (["CLEARED", "SUSPENDED"].includes(content.state)) say(`Interval ${local(content.interval_start)} ${content.state.toLowerCase()}`);
    refreshSoon();
  });
  source.addEventListener("reload", () => location.reload());
  source.addEventListener("instruction", refreshSoon);
  // After a cut the stream brings every state that was missed; what has none of them is looked at once.
  const link = document.getElementById("link");
  source.addEventListener("error", () => { link.textContent = "▲ no connection"; });
  source.addEventListener("open", () => { if (link.textContent) refreshSoon(); link.textContent = ""; });
}

setInterval(() => {
  for (const element of document.querySelectorAll("[data-ends]")) {
    const left = Math.max(0, Math.round(Number(element.dataset.ends) - Date.now() / 1000));
    element.textContent = `${Math.floor(left / 60)}:${String(left % 60).padStart(2, "0")}`;
  }
  const age = document.querySelector("[data-age]");
  if (!age) return;
  age.dataset.age = Number(age.dataset.age) + 1;
  const seconds = Number(age.dataset.age);
  age.textContent = seconds < 120 ? `${seconds} s` : seconds < 7200 ? `${Math.round(seconds / 60)} min` : seconds < 172800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86400)} days`;
}, 1000);

// A link that signs in holds the token behind its #, which no server and no log sees.
const token = document.querySelector(".sign-in #token");
if (token && location.hash.length > 20) {
  token.value = location.hash.slice(1);
  history.replaceState(null, "", location.pathname);
  token.form.requestSubmit();
}

prepare(document);
document.querySelector("nav [aria-current]")?.scrollIntoView({ inline: "center", block: "nearest" });
const live = document.querySelector("[data-live]");
if (live && !new URLSearchParams(location.search).has("day")) listen(document.body.dataset.market, live);
