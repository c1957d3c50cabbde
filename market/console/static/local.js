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

export const local = (seconds, shape = "time") => FORMATS[shape].format(new Date(seconds * 1000));
