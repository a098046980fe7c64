// The rest of the buttons and keys, the list of actions, and the beginning.
const sums = () => {
  const counts = labels.map(() => 0), seconds = labels.map(() => 0), least = level() - 1e-9;
  for (const s of items.values()) {
    if (s.state === REJECTED || !(isTrue(s) || s.confidence >= least)) continue;
    counts[s.label]++;
    seconds[s.label] += s.end - s.start;
  }
  for (const box of $("classes").querySelectorAll("input")) {
    const label = Number(box.value), times = counted(counts[label], "time"), text = seconds[label] ? `${times}, ${inAll(seconds[label])}` : times, sum = box.closest("label").querySelector(".sum");
    if (sum.textContent !== text) sum.textContent = text;
  }
};
// A box for each action that has a segment; new names get one when they are used.
const chips = () => {
  const used = new Set([...items.values()].map((item) => item.label));
  const title = titler(), wanted = listed(title).filter((label) => used.has(label)), called = wanted.map(title);
  const there = [...$("classes").querySelectorAll("label")].map((one) => one.title);
  $("actions").hidden = !wanted.length;
  if (called.join("\n") === there.join("\n")) return;
  for (const label of hidden) if (!used.has(label)) hidden.delete(label);
  $("classes").replaceChildren(...wanted.map((label, i) => {
    const box = made("input", { type: "checkbox", checked: !hidden.has(label), value: label });
    box.addEventListener("change", () => { box.checked ? hidden.delete(label) : hidden.add(label); decide(); tell(); });
    const swatch = made("span", { className: "swatch" });
    swatch.style.background = rgba(label, 1);
    return made("label", { title: called[i] }, box, swatch, made("span", { className: "name", dir: "auto", textContent: called[i] }), made("span", { className: "sum" }));
  }));
};
const legends = () => {
  if (data.segments.length) {
    const ramp = made("span", { className: "ramp" });
    ramp.style.background = `linear-gradient(90deg, ${rgba(0, opacity(0))}, ${rgba(0, 1)})`;
    $("legend").append(made("span", {}, "Each bar is a segment: one action, from start to end."), made("span", { className: "scale" }, "less sure ", ramp, " very sure"),
      made("span", {}, "✓: kept or added by you. Struck through: rejected."));
  }
  if (curves) {
    $("details").hidden = false;
    legendOfCurves();
    $("score").addEventListener("change", () => document.body.classList.toggle("scored", $("score").checked));
    $("details").addEventListener("toggle", () => {
      curvesHigh = $("details").open ? CURVES : 0;
      layout();
      tell();
    });
  }
};
const listenToKeys = () => document.addEventListener("keydown", (event) => {
  if ($("naming").open) return;
  const on = event.target, ctrl = (event.ctrlKey || event.metaKey) && !event.altKey;
  if (ctrl) {
    const ways = { z: event.shiftKey ? redo : undo, y: redo, s: save };
    const press = ways[event.key.toLowerCase()];
    if (press) { press(); event.preventDefault(); }
    return;
  }
  if (event.altKey) return;
  const types = on.matches("input[type=range], input[type=file], select, textarea");
  const presses = on.matches("button:not(.seek), input[type=checkbox], summary, a");
  const handle = on.matches(".handle");
  const withChosen = (what) => { const item = items.get(chosen); item ? what(item) : say("First choose a segment."); return true; };
  const keys = {
    " ": () => !types && !presses && (toggle(), true),
    arrowleft: () => !types && !handle && (seek(now - (event.shiftKey ? 5 : 1)), true),
    arrowright: () => !types && !handle && (seek(now + (event.shiftKey ? 5 : 1)), true),
    arrowdown: () => !types && !handle && !on.matches(".rows") && (jump(1), true),
    arrowup: () => !types && !handle && !on.matches(".rows") && (jump(-1), true),
    n: () => (jump(1), true), p: () => (jump(-1), true),
    ",": () => (video.pause(), seek(now - FRAME), true), ".": () => (video.pause(), seek(now + FRAME), true),
    "+": () => (setZoom(zoom * 2), true), "-": () => (setZoom(zoom / 2), true), 0: () => (setZoom(1), true),
    i: () => (markStart(), true), o: () => (markEnd(), true),
    enter: () => marks.start !== null && !presses && !on.matches(".seek") && (nameIt(), true),
    escape: () => { if (drag) cancelDrag(); else if (marks.start !== null) forget(); else choose(null); return true; },
    k: () => withChosen(keep), delete: () => withChosen(reject), backspace: () => withChosen(reject),
    r: () => (rename(), true), s: () => (setEdge("start"), true), e: () => (setEdge("end"), true),
  };
  if (!keys[event.key.toLowerCase()]?.()) return;
  document.body.classList.add("keyed"); // there is a keyboard, also at a touch screen
  event.preventDefault();
}, true); // capture the keys before the player, which has its own
const listen = () => {
  // A button that was clicked must not take the keys that follow: Space plays, Enter names. Tab users keep their place.
  document.addEventListener("click", (event) => {
    if (event.detail > 0 && !$("naming").open && document.activeElement?.matches("button:not(.seek), input[type=checkbox], summary")) document.activeElement.blur();
  });
  $("threshold").addEventListener("input", () => { decide(); panel(); tell(); });
  $("previous").addEventListener("click", () => jump(-1));
  $("next").addEventListener("click", () => jump(1));
  $("in").addEventListener("click", () => setZoom(zoom * 2));
  $("out").addEventListener("click", () => setZoom(zoom / 2));
  $("fit").addEventListener("click", () => setZoom(1));
  scroller.addEventListener("scroll", draw, { passive: true });
  scroller.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    setZoom(zoom * (event.deltaY < 0 ? 1.25 : 0.8), timeAt(event));
  }, { passive: false });
  new ResizeObserver(layout).observe(scroller);
  // On a phone the tools of the chosen segment lie at the lower edge, over the page.
  new ResizeObserver(() => {
    const over = getComputedStyle($("sheet")).position === "fixed" ? $("sheet").offsetHeight : 0;
    document.documentElement.style.setProperty("--sheet", over + "px");
  }).observe($("sheet"));
};

// An index adds #up=N to the address: it lies N folders above.
const up = /^#up=(\d{1,2})$/.exec(location.hash);
if (up) { $("back").href = "../".repeat(Number(up[1])) + "index.html"; $("back").hidden = false; }
document.body.classList.toggle("hours", duration >= 3600);
if (data.unseen) {
  document.body.classList.add("unseen");
  $("adding").textContent = "Mark an action";
  $("saving").textContent = "Save what you marked";
}
themed(draw);
listenToIdle();
legends();
listenToPlayer();
listenToMarking();
listenToDrags();
listenToLeaving();
listenToKeys();
listen();
const film = $("film").textContent;
if (film) video.src = URL.createObjectURL(new Blob([bytes(film)], { type: "video/mp4" }));
else if (data.link) video.src = data.link;
else video.hidden = true;
$("threshold").min = data.least;
$("threshold").value = data.level;
$("ways").textContent = data.least > 0 ? `To the right: only the surest. What is less than ${percent(data.least)} sure is not on this page.`
  : data.segments.some(([, , confidence]) => confidence < data.level) ? "To the left: more segments, and more mistakes. To the right: only the surest."
  : "To the right: only the surest. Nothing less sure was found.";
$("sureness").hidden = !data.segments.length;
fetchFromBrowser();
fill();
chips();
decide();
panel();
show(0);
