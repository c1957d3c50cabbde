// The overview's two charts. Colours are the page's own, so they follow light and dark.
import { local } from "./local.js";

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const data = () => JSON.parse(document.getElementById("day-data").textContent);
const scaled = (values, unit) => values.map((value) => (value === null ? null : value / unit));
const charts = [];

function axes(unit) {
  const shared = { stroke: colour("--muted"), font: "12px system-ui, sans-serif", grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 } };
  return [
    { ...shared, size: 34, grid: { show: false }, values: (_, ticks) => ticks.map((tick) => local(tick)) },
    { ...shared, size: 46, values: (_, ticks) => ticks.map((tick) => `${tick}`.replace("-", "−")), label: undefined, unit },
  ];
}

function make(id, height, series, values, bands = []) {
  const place = document.getElementById(id);
  const market = document.body.dataset.market;
  const stepped = uPlot.paths.stepped({ align: 1 });
  const chart = new uPlot({
    width: place.clientWidth,
    height,
    legend: { live: true },
    cursor: { y: false, points: { size: 6 } },
    scales: { x: { time: true } },
    axes: axes(),
    bands,
    series: [
      { label: "Interval", value: (_, value) => (value ? local(value) : "–") },
      ...series.map((line) => ({ points: { show: false }, paths: stepped, width: 1.8, ...line, value: (_, value) => (value === null || value === undefined ? "–" : `${value.toFixed(2)} ${line.unit}`) })),
    ],
  }, values(data()), place);
  chart.over.addEventListener("click", () => {
    const start = chart.data[0][chart.cursor.idx];
    if (start) location.href = `/f/${market}/intervals/${start}`;
  });
  charts.push({ chart, values, place, height });
}

function draw() {
  for (const { chart } of charts.splice(0)) chart.destroy();
  const band = colour("--band");
  make("chart-prices", 220, [
    { label: "Highest", unit: "ct/kWh", stroke: "transparent", width: 0 },
    { label: "Lowest", unit: "ct/kWh", stroke: "transparent", width: 0 },
    { label: "Mean", unit: "ct/kWh", stroke: band },
  ], (day) => [day.starts, scaled(day.high, 1e4), scaled(day.low, 1e4), scaled(day.mean, 1e4)],
  [{ series: [1, 2], fill: `color-mix(in srgb, ${band} 24%, transparent)` }]);
  make("chart-energy", 170, [
    { label: "Traded", unit: "kWh", stroke: colour("--supply") },
    { label: "Import", unit: "kWh", stroke: colour("--import") },
    { label: "Export", unit: "kWh", stroke: colour("--demand") },
  ], (day) => [day.starts, scaled(day.traded, 1e3), scaled(day.imported, 1e3), scaled(day.exported, 1e3)]);
}

if (document.getElementById("chart-prices")) {
  draw();
  document.addEventListener("refreshed", () => charts.forEach(({ chart, values }) => chart.setData(values(data()))));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  new ResizeObserver(() => charts.forEach(({ chart, place, height }) => chart.setSize({ width: place.clientWidth, height }))).observe(document.getElementById("chart-prices"));
}
