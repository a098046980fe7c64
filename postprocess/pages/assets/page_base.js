// What every part of the page uses: its data, numbers as people read them, colours.
const $ = (id) => document.getElementById(id);
const data = JSON.parse($("data").textContent);
const video = $("video"), scroller = $("scroller"), stage = $("stage"), canvas = $("canvas"), head = $("playhead");
const FRAME = 1 / (data.rate || 25); // seconds
const labels = [...data.labels]; // grows when a person names a new action
let duration = Math.max(data.duration, 1e-3); // seconds
let now = 0; // seconds

const clock = (s, digits = 2) => {
  const unit = 10 ** digits, total = Math.round(s * unit), whole = Math.floor(total / unit);
  const pad = (n) => String(n).padStart(2, "0");
  const rest = digits ? "." + String(total % unit).padStart(digits, "0") : "";
  const hours = Math.floor(whole / 3600), minutes = Math.floor(whole / 60) % 60;
  return (hours ? hours + ":" + pad(minutes) : minutes) + ":" + pad(whole % 60) + rest;
};
const counted = (n, what) => `${n} ${what}${n === 1 ? "" : "s"}`;
const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
// First index whose value is greater.
const after = (list, value) => {
  let low = 0, high = list.length;
  while (low < high) { const middle = (low + high) >> 1; if (list[middle] > value) high = middle; else low = middle + 1; }
  return low;
};
const within = (value, low, high) => Math.min(high, Math.max(low, value));
const colour = (label) => data.palette[label % data.palette.length];
const rgba = (label, alpha) => { const c = colour(label); return `rgba(${c[0]},${c[1]},${c[2]},${alpha})`; };
const opacity = (confidence) => 0.22 + 0.78 * confidence;
const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const made = (tag, properties = {}, ...inside) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...inside);
  return element;
};
// What changed, for everybody: it is shown, and screen readers read it out.
const say = (text) => { $("said").textContent = text; };
