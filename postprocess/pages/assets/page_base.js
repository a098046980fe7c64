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
// How sure the program is, as people say it. No program is ever 100 % sure.
const percent = (value) => (value >= 0.995 ? ">99\u00a0%" : `${Math.round(100 * value)}\u00a0%`);
// A sum of seconds.
const inAll = (seconds) => (seconds < 60 ? seconds.toFixed(seconds < 1 ? 2 : 1) + " s" : clock(seconds, 0));
// A name inside a sentence. One that is written from right to left must not turn the times around it.
const RIGHT_TO_LEFT = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]/;
const apart = (name) => (RIGHT_TO_LEFT.test(name) ? `\u2068${name}\u2069` : name);
const inSight = (id) => { const box = $(id).getBoundingClientRect(); return box.top > 0 && box.bottom < innerHeight; };
const isTouched = () => matchMedia("(pointer: coarse)").matches && !document.body.classList.contains("keyed");
const opacity = (confidence) => 0.22 + 0.78 * confidence;
const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const made = (tag, properties = {}, ...inside) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...inside);
  return element;
};
// What changed, for everybody: it is shown for a while, and screen readers read it out.
let sayingSince = 0;
const say = (text, silent = false) => {
  $("said").textContent = text;
  $("said").classList.toggle("silent", silent); // what another place shows, too, need not cover the buttons
  $("said").classList.remove("old");
  clearTimeout(sayingSince);
  sayingSince = setTimeout(() => $("said").classList.add("old"), 8000);
};
// A button that has nothing to do says why. It stays where the keyboard can reach it, which `disabled` would prevent.
const able = (id, on, why) => {
  const button = $(id), title = on ? "" : why;
  if (button.getAttribute("aria-disabled") === String(!on) && button.title === title) return;
  button.setAttribute("aria-disabled", !on);
  button.title = title;
};
const listenToIdle = () => document.addEventListener("click", (event) => {
  const idle = event.target.closest('button[aria-disabled="true"]');
  if (!idle) return;
  event.stopImmediatePropagation();
  event.preventDefault();
  say(idle.title);
}, true);
