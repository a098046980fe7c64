// What was changed stays in the browser until it is saved as a file; leaving before that is warned of.
const STORED = "jcdnet:page:" + data.key;
let savedAs = ""; // the changes that are in a file
let warned = false;

// The changes as text: the same changes give the same text.
const changes = () => JSON.stringify({
  complete,
  items: [...items.values()].filter((item) => item.state !== OPEN)
    .map((item) => [item.was ? item.id : -1, item.state, item.start, item.end, labels[item.label]])
    .sort((a, b) => a[0] - b[0] || a[2] - b[2] || (a[4] < b[4] ? -1 : 1)),
});
const untouched = changes();
let latest = untouched; // the changes now
const isDirty = () => latest !== savedAs;
const keepInBrowser = () => {
  latest = changes();
  if (remember(STORED, JSON.stringify({ now: latest, saved: savedAs })) || warned) return;
  warned = true;
  say("This browser does not keep your changes: save them before you close the page.");
};
const isSpan = (start, end) => Number.isFinite(start) && Number.isFinite(end) && start >= 0 && end >= start;
const restore = (text) => {
  const found = JSON.parse(text);
  for (const [id, item] of [...items]) if (!item.was) items.delete(id);
  for (const [id, state, start, end, name] of found.items) {
    if (!isSpan(start, end) || typeof name !== "string" || ![KEPT, REJECTED, ADDED].includes(state)) continue;
    const label = labels.includes(name) ? labels.indexOf(name) : labels.push(name) - 1, old = items.get(id);
    if (old && old.was && state !== ADDED) items.set(id, { ...old, state, start, end, label });
    else if (state === ADDED) items.set(fresh, { id: fresh++, start, end, label, confidence: null, score: null, state, was: null });
  }
  complete = found.complete === true;
};
const fetchFromBrowser = () => {
  savedAs = untouched;
  try {
    const kept = JSON.parse(recall(STORED) || "null");
    if (!kept) return;
    restore(kept.now);
    latest = changes();
    savedAs = kept.saved;
    $("again").hidden = !isDirty();
  } catch { /* another version's, or damaged: the page begins anew */ }
};
const throwAway = () => {
  const ids = [...items.keys()];
  const edits = ids.map((id) => [id, items.get(id).was ? { ...items.get(id), ...items.get(id).was, state: OPEN } : null]);
  $("again").hidden = true;
  change([...edits, ["complete", false]], "Your changes are gone.");
};
const corrections = () => {
  const all = [...items.values()].sort((a, b) => a.start - b.start || a.id - b.id), at = (time) => Math.round(time * 1000) / 1000;
  return {
    corrections: 1, video: data.video, content: data.content, duration: at(duration), saved: new Date().toISOString(), complete,
    segments: all.filter(isTrue).map((item) => ({
      start: at(item.start), end: isMoment(item) ? null : at(item.end), label: labels[item.label],
      origin: item.state === ADDED ? "added" : isMoved(item) ? "changed" : "kept",
    })),
    rejected: all.filter((item) => item.state === REJECTED).map((item) => ({ start: at(item.start), end: at(item.end), label: labels[item.label] })),
  };
};
const save = () => {
  const name = data.stem + ".corrections.json";
  const address = URL.createObjectURL(new Blob([JSON.stringify(corrections(), null, 1) + "\n"], { type: "application/json" }));
  made("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
  savedAs = changes();
  $("again").hidden = true;
  keepInBrowser();
  panel();
  say(`Saved as ${apart(name)}, among your downloads.`);
};
const listenToLeaving = () => window.addEventListener("beforeunload", (event) => { if (isDirty()) event.preventDefault(); });
