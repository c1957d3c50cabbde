// Times as the browser's place has them. A module of its own: what others import must have one address, and
// the page's own script has a version in its.

const SHAPES = {
  time: { hour: "2-digit", minute: "2-digit", hour12: false },
  full: { year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", hour12: false },
  // A market's day is a UTC day: its name must not change with the browser's place.
  day: { weekday: "short", year: "numeric", month: "short", day: "numeric", timeZone: "UTC" },
};
const FORMATS = Object.fromEntries(Object.entries(SHAPES).map(([shape, options]) =>
  [shape, new Intl.DateTimeFormat(shape === "day" ? navigator.language : "sv-SE", options)]));

const OFFSET = new Intl.DateTimeFormat("en", { timeZoneName: "shortOffset" });
const HOUR_S = 3600;
const read = (seconds, shape) => FORMATS[shape].format(new Date(seconds * 1000));
const offset = (seconds) => OFFSET.formatToParts(new Date(seconds * 1000)).find(({ type }) => type === "timeZoneName").value;

// Where clocks are set back an hour comes twice: which one is meant is said with it.
export const local = (seconds, shape = "time") => {
  const text = read(seconds, shape);
  const twice = shape !== "day" && [-HOUR_S, HOUR_S].some((apart) => read(seconds + apart, shape) === text);
  return twice ? `${text} ${offset(seconds)}` : text;
};
