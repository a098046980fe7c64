// Edges are dragged: with the mouse on the segment itself, with a finger or the keyboard on the handles of the chosen one.
let drag = null; // {id, edge, moved, grabbed: seconds between the pointer and the edge}

// How far an edge may go: to the other edge, the ends of the video, and what is marked beside it under the same name.
const limits = (item, edge) => {
  let low = edge === "start" ? 0 : item.start + SHORTEST, high = edge === "start" ? item.end - SHORTEST : duration;
  for (const other of items.values()) {
    if (other.id === item.id || other.label !== item.label || !isTrue(other)) continue;
    if (edge === "start" && other.end <= item.start) low = Math.max(low, other.end);
    if (edge === "end" && other.start >= item.end) high = Math.min(high, other.start);
  }
  return [Math.min(low, high), high];
};
const timeAt = (event) => (event.clientX - stage.getBoundingClientRect().left) / (width() / duration);
const grab = (event, item, edge, on) => {
  if (event.button !== 0) return;
  event.preventDefault();
  video.pause();
  drag = { id: item.id, edge, moved: false, grabbed: timeAt(event) - item[edge], from: event.clientX };
  on.setPointerCapture(event.pointerId);
};
const dragTo = (event) => {
  if (!drag) return;
  if (!drag.moved && Math.abs(event.clientX - drag.from) < 3) return; // a click is no drag
  if (!drag.moved) choose(items.get(drag.id));
  drag.moved = true;
  const item = items.get(drag.id), [low, high] = limits(item, drag.edge);
  preview = { ...item, [drag.edge]: within(timeAt(event) - drag.grabbed, low, high) };
  lookAt(preview[drag.edge]);
  place();
  draw();
};
// The picture at the edge, as fast as the player can show it.
const lookAt = (time) => {
  now = time;
  if (video.readyState > 0 && !video.seeking) video.currentTime = time;
  $("now").textContent = clock(time) + " of " + clock(duration);
};
const drop = () => {
  const was = drag, moved = preview;
  drag = preview = null;
  if (!was || !was.moved || !moved) return;
  const { start, end } = moved;
  move(items.get(was.id), round(start), round(end));
  seek(moved[was.edge]);
};
const cancelDrag = () => { drag = preview = null; place(); draw(); };
const round = (time) => Math.round(time * 1000) / 1000;
const nudge = (edge, by) => {
  const item = items.get(chosen), [low, high] = limits(item, edge), time = round(within(item[edge] + by, low, high));
  if (time === item[edge]) return;
  move(item, edge === "start" ? time : item.start, edge === "end" ? time : item.end);
  seek(time);
};
const listenToDrags = () => {
  let dragged = false; // the click that ends a drag is none
  canvas.addEventListener("pointerdown", (event) => {
    dragged = false;
    if (event.pointerType === "touch") return; // a finger scrolls; it drags the handles
    const { item, edge } = under(event);
    if (edge) grab(event, item, edge, canvas);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (drag) return;
    const { time, item, edge } = under(event);
    canvas.style.cursor = edge ? "ew-resize" : "pointer";
    canvas.title = item ? `${named(item)}${item.confidence === null ? "" : `, ${percent(item.confidence)} sure`}` : clock(time);
  });
  for (const [on, edge] of [[$("from"), "start"], [$("to"), "end"]]) {
    on.addEventListener("pointerdown", (event) => { const item = items.get(chosen); if (item) { on.focus(); grab(event, item, edge, on); } });
    on.addEventListener("keydown", (event) => {
      const way = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[event.key];
      if (!way || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      nudge(edge, way * (event.shiftKey ? 1 : FRAME));
    });
  }
  for (const on of [canvas, $("from"), $("to")]) {
    on.addEventListener("pointermove", dragTo);
    on.addEventListener("pointerup", () => { dragged = Boolean(drag && drag.moved); drop(); });
    on.addEventListener("pointercancel", cancelDrag);
  }
  canvas.addEventListener("click", (event) => {
    if (dragged) return;
    const { time, item } = under(event);
    choose(item);
    if (item) play(item);
    else seek(time);
  });
};
