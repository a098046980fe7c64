// The segments, and what a person made of them. An item is never altered: a change puts another one in its place, so
// that undo only has to put the old one back.
const OPEN = "open", KEPT = "kept", REJECTED = "rejected", ADDED = "added";
const SHORTEST = 0.04; // seconds; a segment that ends where it starts is a single moment
const unsure = new Set(data.unsure); // ids of segments of which only a sport is sure
const items = new Map(); // id → {id, start, end, label, confidence, score, state, was}
data.segments.forEach(([start, end, confidence, score, label], id) =>
  items.set(id, { id, start, end, confidence, score, label, state: OPEN, was: { start, end, label } }));
for (const [start, end, label] of data.marked) { // what was marked on an earlier page
  items.set(items.size, { id: items.size, start, end, confidence: null, score: null, label, state: ADDED, was: null });
}
let fresh = items.size; // the next id
let complete = data.complete;
const done = [], undone = []; // steps: {forth, back, text}

const isTrue = (item) => item.state === KEPT || item.state === ADDED;
const isMoment = (item) => item.end === item.start;
const isMoved = (item) => Boolean(item.was) && (item.was.start !== item.start || item.was.end !== item.end || item.was.label !== item.label);
// An action as the program's table calls it: its sport stands before it, unless its name says it.
const nameOf = (label) => (data.said[label] ? `${data.said[label]}: ${labels[label]}` : labels[label]);
const isUnsure = (item) => unsure.has(item.id) && !isTrue(item) && !isMoved(item);
const told = (item) => (isUnsure(item) ? labels[item.label] + data.doubt : nameOf(item.label));
// What the lanes are called: unsure, if all of a lane is.
const titler = () => {
  const sure = new Set(), doubted = new Map();
  for (const item of items.values()) isUnsure(item) ? doubted.set(item.label, told(item)) : sure.add(item.label);
  return (label) => (sure.has(label) ? nameOf(label) : doubted.get(label) ?? nameOf(label));
};
// The labels as they are listed: by sport, where there are any.
const listed = (called = nameOf) => {
  const all = labels.map((_, label) => label), sport = (label) => data.sports[label] || called(label);
  return data.sports.some(Boolean) ? all.sort((a, b) => sport(a).localeCompare(sport(b)) || called(a).localeCompare(called(b))) : all;
};
const named = (item) => `${apart(told(item))}, ${clock(item.start)}${isMoment(item) ? "" : " to " + clock(item.end)}`;

// An action cannot begin again before it has ended: the marked segment of the same name that is in the way.
const clash = (item, all = items.values()) => {
  for (const other of all) {
    if (other.id === item.id || other.label !== item.label || !isTrue(other)) continue;
    const moment = isMoment(item) || isMoment(other);
    if (moment ? item.start <= other.end && other.start <= item.end : item.start < other.end && other.start < item.end) return other;
  }
  return null;
};

const apply = (edits) => {
  for (const [id, item] of edits) {
    if (id === "complete") complete = item;
    else if (item) items.set(id, item);
    else items.delete(id);
  }
  changed(edits.map(([id]) => id).filter((id) => id !== "complete"));
};
// Each edit is [id, the item that takes the place] or ["complete", true or false].
const change = (edits, text) => {
  const back = edits.map(([id]) => [id, id === "complete" ? complete : items.get(id) || null]);
  done.push({ forth: edits, back, text });
  undone.length = 0;
  apply(edits);
  say(text);
};
const undo = () => {
  const step = done.pop();
  if (!step) return say("There is nothing to undo.");
  undone.push(step);
  apply(step.back);
  say("Undone: " + step.text);
};
const redo = () => {
  const step = undone.pop();
  if (!step) return say("There is nothing to redo.");
  done.push(step);
  apply(step.forth);
  say("Done again: " + step.text);
};
// A change of one item, unless another one is in its way.
const put = (item, text) => {
  const other = isTrue(item) && clash(item);
  if (other) { say(`That would overlap ${named(other)}, which is marked already. Move or remove that one first.`); return false; }
  change([[item.id, item]], text);
  return true;
};

const keep = (item) => {
  if (isTrue(item)) return say(`${named(item)} is kept already.`);
  const mine = { ...item, state: item.was ? KEPT : ADDED };
  put(mine, `Kept: ${named(mine)}.`);
};
const reject = (item) => {
  if (!item.was) change([[item.id, null]], `Removed: ${named(item)}.`);
  else if (item.state === REJECTED) change([[item.id, { ...item, state: OPEN }]], `No longer rejected: ${named(item)}.`);
  else change([[item.id, { ...item, ...item.was, state: REJECTED }]], `Rejected: ${named(item)}.`);
};
const move = (item, start, end) => {
  const moved = { ...item, start, end, state: item.was ? KEPT : ADDED };
  return put(moved, `Moved: ${named(moved)}.`);
};
const relabel = (item, label) => put({ ...item, label, state: item.was ? KEPT : ADDED }, `Renamed: it is ${apart(nameOf(label))} now.`);
const add = (start, end, label) => {
  const item = { id: fresh++, start, end, label, confidence: null, score: null, state: ADDED, was: null };
  return put(item, `Added: ${named(item)}.`) ? item : null;
};
// Whoever says that everything is marked has looked at what is shown: what nobody rejected is right.
const setComplete = (on) => {
  if (!on) return change([["complete", false]], "The video no longer counts as checked.");
  const kept = [];
  for (const item of [...shown].sort((a, b) => b.confidence - a.confidence)) {
    if (item.state !== OPEN) continue;
    const mine = { ...item, state: KEPT };
    if (!clash(mine) && !clash(mine, kept)) kept.push(mine);
  }
  const also = kept.length ? ` ${counted(kept.length, "segment")} that you did not reject ${kept.length === 1 ? "is" : "are"} kept.` : "";
  change([["complete", true], ...kept.map((item) => [item.id, item])], "You checked the whole video." + also);
};
