// The table: a row for each segment, with the two buttons that most corrections need.
const COLUMNS = [
  ["start", "start", ""], ["end", "end", "wide"], ["length", "length", "wide"], ["action", "label", "text"],
  ["sure", "confidence", "wide number"], ["score", "score", "wide detail"], ["right?", "state", "yours"],
];
const RANK = { [OPEN]: 0, [KEPT]: 1, [ADDED]: 2, [REJECTED]: 3 };
const rows = new Map(); // id → row
let sort = { key: "start", up: true };

const value = (item, key) => {
  if (key === "length") return item.end - item.start;
  if (key === "label") return told(item);
  return key === "state" ? RANK[item.state] : item[key] ?? 2; // what a person added is surest
};
const lasting = (seconds) => (seconds < 60 ? seconds.toFixed(2) + " s" : clock(seconds));
const pressed = (name, text) => made("button", { type: "button", className: name, textContent: text });
const row = (item) => {
  const found = rows.get(item.id) || made("tr");
  found.dataset.i = item.id;
  found.dataset.state = item.state;
  const start = clock(item.start), moment = isMoment(item);
  const go = pressed("seek", start), yes = pressed("yes", "✓"), no = pressed("no", "✗");
  go.setAttribute("aria-label", `${told(item)}, from ${start}: play`);
  yes.setAttribute("aria-label", `Keep ${named(item)}`);
  yes.setAttribute("aria-pressed", isTrue(item));
  no.setAttribute("aria-label", `${item.was ? "Reject" : "Remove"} ${named(item)}`);
  no.setAttribute("aria-pressed", item.state === REJECTED);
  yes.title = isTrue(item) ? "kept" : "keep: it is right"; // without a mouse the label says it
  no.title = item.was ? "reject: it is wrong" : "remove";
  const sure = item.confidence === null ? "–" : percent(item.confidence);
  const cells = [go, moment ? "" : clock(item.end), moment ? "a moment" : lasting(item.end - item.start), told(item), sure, item.score === null ? "–" : item.score.toFixed(2), ""];
  const put = cells.map((cell, c) => made("td", { className: COLUMNS[c][2] }, cell));
  put[3].dir = "auto";
  // On a phone these stand below the start and the name, in place of columns.
  put[0].dataset.under = moment ? "a moment" : "– " + clock(item.end);
  put[3].dataset.under = item.confidence === null ? "added by you" : sure + " sure";
  put[6].append(yes, no);
  if (isMoved(item)) put[3].append(made("span", { className: "muted", textContent: " (changed)" }));
  // A button that has the focus keeps it, or the keyboard would lose its place.
  const on = document.activeElement && found.contains(document.activeElement) ? document.activeElement.className : "";
  found.replaceChildren(...put);
  if (on) found.querySelector(`.${on}`)?.focus({ preventScroll: true });
  rows.set(item.id, found);
  return found;
};
const order = () => {
  for (const cell of $("columns").children) {
    cell.setAttribute("aria-sort", cell.dataset.key === sort.key ? (sort.up ? "ascending" : "descending") : "none");
  }
  const compare = (a, b) => {
    const x = value(a, sort.key), y = value(b, sort.key);
    return (typeof x === "string" ? x.localeCompare(y) : x - y) * (sort.up ? 1 : -1) || a.start - b.start || a.id - b.id;
  };
  const wanted = [...items.values()].sort(compare).map((item) => rows.get(item.id)), body = $("body");
  const there = [...body.children]; // not `rows`, which counts anew for each index
  if (wanted.length === there.length && wanted.every((one, i) => one === there[i])) return;
  const focus = document.activeElement; // moving a row takes the focus away
  body.replaceChildren(...wanted);
  if (focus !== document.activeElement && body.contains(focus)) focus.focus({ preventScroll: true });
};
const fill = () => {
  for (const item of items.values()) row(item);
  for (const [name, key, kind] of COLUMNS) {
    const button = made("button", { type: "button", textContent: name });
    button.addEventListener("click", () => {
      sort = { key, up: sort.key === key ? !sort.up : !["confidence", "score"].includes(key) };
      order();
    });
    const cell = made("th", { scope: "col", className: kind }, button);
    cell.dataset.key = key;
    $("columns").append(cell);
  }
  order();
  $("body").addEventListener("click", (event) => {
    const on = event.target.closest("tr");
    if (!on) return;
    const item = items.get(Number(on.dataset.i));
    choose(item);
    if (event.target.matches(".yes")) isTrue(item) && item.was ? change([[item.id, { ...item, ...item.was, state: OPEN }]], `No longer kept: ${named(item)}.`) : keep(item);
    else if (event.target.matches(".no")) reject(item);
    else play(item);
  });
};
// Show a row in its box, without moving the page.
const reveal = (found) => {
  const box = found.closest(".rows"), y = found.offsetTop;
  if (box.scrollHeight > box.clientHeight + 4 && (y < box.scrollTop + 40 || y > box.scrollTop + box.clientHeight - 40)) box.scrollTop = y - box.clientHeight / 2;
};
