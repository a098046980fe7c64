// Marking and correcting: the chosen segment, a new one between two marks, and their names.
const marks = { start: null, end: null }; // seconds, of a segment that has no name yet
let lastName = null; // label
let asking = null; // what happens with the name that a person gives

const choose = (item) => {
  rows.get(chosen)?.classList.remove("chosen");
  chosen = item ? item.id : null;
  rows.get(chosen)?.classList.add("chosen");
  panel();
  tell();
  place();
  draw();
};
// Everything that shows the state of marking.
const panel = () => {
  const item = items.get(chosen);
  $("chosen").hidden = !item;
  $("unchosen").hidden = Boolean(item);
  $("sheet").hidden = !items.size;
  document.body.classList.toggle("choosing", Boolean(item));
  if (item) {
    $("which").textContent = told(item);
    $("lasts").textContent = isMoment(item) ? clock(item.start) : `${clock(item.start)} – ${clock(item.end)} (${lasting(item.end - item.start)})`;
    $("keep").setAttribute("aria-pressed", isTrue(item));
    $("reject").setAttribute("aria-pressed", item.state === REJECTED);
    $("reject-word").textContent = item.was ? "reject" : "remove";
  }
  const { start, end } = marks;
  $("hint").textContent = start === null ? "Go to where the action starts. Press button\u00a01."
    : end === null ? `It starts at ${clock(start)}. Go to where it ends. Press button\u00a02. (Is it a single moment? Press button\u00a03.)` : `It lasts from ${clock(start)} to ${clock(end)}. Press button\u00a03.`;
  able("set-out", start !== null, "First say where it starts.");
  able("name-it", start !== null, "First say where it starts.");
  $("forget").hidden = start === null;
  $("complete").checked = complete;
  able("undo", done.length > 0, "There is nothing to undo.");
  able("undo-here", done.length > 0, "There is nothing to undo.");
  able("redo", undone.length > 0, "There is nothing to redo.");
  const count = (state) => [...items.values()].filter((one) => one.state === state).length;
  const parts = [[count(KEPT), "kept"], [count(ADDED), "added"], [count(REJECTED), "rejected"]].filter(([n]) => n).map(([n, what]) => `${n} ${what}`);
  const left = shown.filter((one) => one.state === OPEN).length;
  $("unchecked").hidden = complete || !left;
  $("unchecked").textContent = `${left} of ${counted(shown.length, "segment")} ${left === 1 ? "is" : "are"} not checked yet. Press ✓ (right) or ✗ (wrong) beside ${left === 1 ? "it" : "each of them"} in the table, `
    + "or tick the box above. You can also save before that: nothing is learnt from what is not checked.";
  const something = complete || [...items.values()].some((one) => one.state !== OPEN);
  able("save", isDirty() || something, "Nothing to save: you have not changed anything.");
  $("unsaved").hidden = !isDirty();
  $("save").classList.toggle("main", isDirty());
  $("save").firstChild.data = isDirty() || !something ? "Save" : "Save again";
  $("tally").textContent = [parts.join(", "), isDirty() ? "not saved yet" : something ? "saved" : ""].filter(Boolean).join(" · ");
};
// After any change: the rows, the lanes, the panel, and what the browser keeps.
const changed = (ids) => {
  for (const id of ids) {
    const item = items.get(id);
    if (item) row(item);
    else { rows.get(id)?.remove(); rows.delete(id); }
  }
  if (!items.has(chosen)) chosen = null;
  rows.get(chosen)?.classList.add("chosen");
  order();
  chips();
  decide();
  keepInBrowser();
  panel();
  tell();
};

const markStart = () => {
  if (marks.end !== null && now >= marks.end) marks.end = null;
  marks.start = now;
  say(`It starts at ${clock(now)}.`, inSight("hint"));
  panel();
  draw();
};
const markEnd = () => {
  if (marks.start === null || now < marks.start + SHORTEST) return say(marks.start === null ? "First say where it starts." : "It cannot end before it starts.");
  marks.end = now;
  say(`It ends at ${clock(now)}. Now name it.`, inSight("hint"));
  panel();
  draw();
};
const forget = () => {
  marks.start = marks.end = null;
  panel();
  draw();
};
const setEdge = (edge) => {
  const item = items.get(chosen);
  if (!item) return say("First choose a segment.");
  if (item.state === REJECTED) return say("This segment is rejected. First keep it.");
  const start = edge === "start" ? now : item.start, end = edge === "end" ? now : item.end;
  if (isMoment(item) && edge === "start") return move(item, now, now);
  if (end - start < SHORTEST) return say("A segment cannot end before it starts.");
  move(item, start, end);
};

// --- names ---
const clean = (text) => text.normalize("NFC").split(/\s+/u).filter(Boolean).join(" ");
const key = (text) => clean(text.replaceAll("_", " ")).toLowerCase();
// The label of a name, which may be new; null if nothing can be called so.
const labelOf = (text) => {
  const name = clean(text);
  const wrong = !name ? "Type a name." : /[|,;，；、\p{Cc}]/u.test(name) ? "A name cannot hold a comma, a semicolon or |." : "";
  $("wrong").textContent = wrong;
  if (wrong) return null;
  const known = labels.findIndex((label, i) => [label, nameOf(i), label + data.doubt].some((way) => key(way) === key(name)));
  return known >= 0 ? known : labels.push(name) - 1;
};
const ask = (span, name, then) => {
  video.pause();
  asking = then;
  $("span").textContent = span;
  $("wrong").textContent = "";
  $("name").placeholder = labels.length ? "type a name, or choose one below" : "type a name";
  $("known").replaceChildren(...listed().map((label) => {
    const button = pressed("known", nameOf(label));
    button.dir = "auto";
    button.dataset.label = label;
    return button;
  }));
  $("naming").showModal();
  $("name").value = name;
  // The keyboard of a phone would cover the names.
  if (isTouched() && labels.length) $("known").firstElementChild.focus();
  else $("name").select();
};
const answer = (text) => {
  const label = labelOf(text);
  if (label === null) return $("name").focus();
  lastName = label;
  $("naming").close();
  asking(label);
};
const nameIt = () => {
  const { start, end } = marks;
  if (start === null) return;
  ask(end === null ? `the moment at ${clock(start)}` : `${clock(start)} – ${clock(end)}`, lastName === null ? "" : labels[lastName], (label) => {
    const item = add(start, end ?? start, label);
    if (!item) return;
    forget();
    choose(item);
  });
};
const rename = () => {
  const item = items.get(chosen);
  if (!item) return say("First choose a segment.");
  ask(`${clock(item.start)} – ${clock(item.end)}`, labels[item.label], (label) => { if (label !== item.label) relabel(item, label); });
};
const listenToMarking = () => {
  const withChosen = (what) => () => { const item = items.get(chosen); item ? what(item) : say("First choose a segment."); };
  const buttons = {
    play: withChosen(play), keep: withChosen(keep), reject: withChosen(reject), rename, begin: () => setEdge("start"), finish: () => setEdge("end"),
    "set-in": markStart, "set-out": markEnd, "name-it": nameIt, forget, undo, "undo-here": undo, redo, save,
    discard: () => { throwAway(); }, cancel: () => $("naming").close(),
  };
  for (const [id, press] of Object.entries(buttons)) $(id).addEventListener("click", press);
  $("complete").addEventListener("change", (event) => setComplete(event.target.checked));
  $("names").addEventListener("submit", (event) => { event.preventDefault(); answer($("name").value); });
  $("known").addEventListener("click", (event) => { if (event.target.matches(".known")) answer(labels[event.target.dataset.label]); });
  $("unchoose").addEventListener("click", () => choose(null));
};
