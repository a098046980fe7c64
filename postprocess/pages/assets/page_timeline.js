// The time line: a lane for each action that is shown, at any zoom.
const pen = canvas.getContext("2d");
const AXIS = 22, LANE = 36, DEEPEST = 200; // pixels; pixels a second at most
const hidden = new Set(); // labels
let curvesHigh = 0; // pixels
let zoom = 1, shown = [], lanes = [], titles = nameOf, queued = false;
let current = null, chosen = null; // ids: what is played now, what a person picked
let preview = null; // an item that is being dragged

const level = () => Number($("threshold").value);
// A person's own marks are shown whatever the slider says.
const isShown = (item, least = level() - 1e-9) => !hidden.has(item.label) && (isTrue(item) || item.confidence >= least);
const decide = () => {
  $("level").value = percent(level());
  const least = level() - 1e-9;
  shown = [...items.values()].filter((item) => isShown(item, least)).sort((a, b) => a.start - b.start || a.id - b.id);
  $("count").value = `${shown.length} of ${counted(items.size, "segment")}`;
  const used = new Set(shown.map((item) => item.label));
  titles = titler();
  lanes = listed(titles).filter((label) => used.has(label));
  const visible = new Set(shown.map((item) => item.id));
  $("how").hidden = !shown.length;
  $("previous").hidden = $("next").hidden = !items.size;
  for (const [id, found] of rows) {
    const hide = !visible.has(id);
    if (found.hidden !== hide) found.hidden = hide;
  }
  $("empty").hidden = shown.length > 0;
  $("table").hidden = shown.length === 0;
  $("empty").textContent = items.size === 0 ? (data.unseen ? "Nothing is marked yet." : `Nothing was found${data.level ? ` of which the program is at least ${percent(data.level)} sure` : ""}. ${data.sportsOnly ? "It looked only for the sports that it knows. " : ""}You can add what you see.`)
    : hidden.size ? "Nothing to show: under “Show these actions”, tick one." : `Nothing is at least ${percent(level())} sure. To see what is less sure, move the slider “How sure” to the left.`;
  sums();
  layout();
};

const width = () => stage.clientWidth || 1; // of the whole video at this zoom, pixels
const laneTop = (label) => AXIS + curvesHigh + lanes.indexOf(label) * LANE;
const layout = () => {
  const view = scroller.clientWidth, ratio = window.devicePixelRatio || 1;
  stage.style.width = Math.round(view * zoom) + "px";
  const height = AXIS + curvesHigh + Math.max(1, lanes.length) * LANE + 6;
  canvas.style.width = view + "px";
  canvas.style.height = height + "px";
  if (canvas.width !== Math.round(view * ratio)) canvas.width = Math.round(view * ratio);
  if (canvas.height !== Math.round(height * ratio)) canvas.height = Math.round(height * ratio);
  zoomable();
  place();
  draw();
};
const draw = () => {
  if (queued) return;
  queued = true;
  requestAnimationFrame(() => { queued = false; paint(); });
};
// A text that is cut where there is no more room.
const fitting = (text, room) => {
  if (pen.measureText(text).width <= room) return text;
  let low = 0, high = text.length;
  while (low < high) { const middle = (low + high + 1) >> 1; if (pen.measureText(text.slice(0, middle) + "…").width <= room) low = middle; else high = middle - 1; }
  return text.slice(0, low) + "…";
};
const STEPS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600];
const paint = () => {
  const ratio = window.devicePixelRatio || 1, view = scroller.clientWidth, left = scroller.scrollLeft;
  const scale = width() / duration, x = (t) => t * scale - left;
  const from = left / scale, to = (left + view) / scale;
  const ink = style("--ink"), faint = style("--faint"), line = style("--line"), high = canvas.height / ratio;
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, view, high);
  pen.font = "12px system-ui, 'DejaVu Sans', sans-serif";
  pen.textBaseline = "middle";
  const step = STEPS.find((s) => s * scale >= 78) || 7200;
  for (let k = Math.ceil(from / step); k * step <= to; k++) {
    pen.fillStyle = line;
    pen.fillRect(Math.round(x(k * step)), 0, 1, high);
    pen.fillStyle = faint;
    pen.fillText(clock(k * step, step < 1 ? 1 : 0), x(k * step) + 4, AXIS / 2);
  }
  if (curvesHigh) pen.drawImage(curvesBehind(view, left, ratio), 0, 0, view, AXIS + curvesHigh);
  for (const label of lanes) {
    const top = laneTop(label);
    pen.fillStyle = line;
    pen.fillRect(0, top, view, 1);
    for (const item of shown) {
      if (item.label !== label || item.end < from || item.start > to) continue;
      paintItem(preview && preview.id === item.id ? preview : item, top, x, scale, ink, faint);
    }
    pen.fillStyle = ink;
    pen.fillText(fitting(titles(label), view - 12), 6, top + 9);
  }
  if (!lanes.length && !curvesHigh) {
    pen.fillStyle = faint;
    pen.fillText(marks.start === null ? "no segments" : "", 6, AXIS + 16);
  }
  if (marks.start !== null) {
    const end = marks.end ?? Math.max(now, marks.start), begin = x(marks.start), wide = Math.max(2, (end - marks.start) * scale);
    pen.globalAlpha = 0.25;
    pen.fillStyle = style("--accent");
    pen.fillRect(begin, AXIS, wide, high - AXIS);
    pen.globalAlpha = 1;
    pen.fillRect(begin - 1, AXIS, 2, high - AXIS);
    if (marks.end !== null) pen.fillRect(begin + wide - 1, AXIS, 2, high - AXIS);
  }
};
// Full colour and a tick: a person's. Pale: the program's, the surer the stronger. Struck through: rejected.
const paintItem = (item, top, x, scale, ink, faint) => {
  const begin = x(item.start), wide = Math.max(2, (item.end - item.start) * scale - 1), y = top + 18, mine = isTrue(item);
  if (isMoment(item)) {
    pen.fillStyle = rgba(item.label, 1);
    pen.beginPath();
    pen.moveTo(begin, y - 1); pen.lineTo(begin + 7, y + 7); pen.lineTo(begin, y + 15); pen.lineTo(begin - 7, y + 7);
    pen.fill();
  } else if (item.state === REJECTED) {
    pen.strokeStyle = faint;
    pen.setLineDash([3, 3]);
    pen.strokeRect(begin + 0.5, y + 0.5, wide - 1, 13);
    pen.setLineDash([]);
    pen.fillStyle = faint;
    pen.fillRect(begin, y + 6, wide, 2);
  } else {
    pen.fillStyle = rgba(item.label, mine ? 1 : opacity(item.confidence));
    pen.fillRect(begin, y, wide, 14);
    pen.strokeStyle = rgba(item.label, 1);
    if (wide > 3) pen.strokeRect(begin + 0.5, y + 0.5, wide - 1, 13);
    if (mine && wide > 16) { pen.fillStyle = "#fff"; pen.fillText("✓", begin + 4, y + 8); }
  }
  if (item.id !== current && item.id !== chosen) return;
  pen.strokeStyle = ink;
  pen.lineWidth = 2;
  if (isMoment(item)) pen.strokeRect(begin - 9, y - 3, 18, 20);
  else pen.strokeRect(begin - 2, y - 3, wide + 4, 20);
  pen.lineWidth = 1;
};
const deepest = () => Math.max(1, (duration * DEEPEST) / (scroller.clientWidth || 1));
const zoomable = () => {
  able("out", zoom > 1, "The whole video is shown already.");
  able("fit", zoom > 1, "The whole video is shown already.");
  able("in", zoom < deepest() - 1e-6, "It does not get larger than this.");
};
const setZoom = (wanted, anchor = now) => {
  const view = scroller.clientWidth;
  const inside = within(anchor * (width() / duration) - scroller.scrollLeft, 0, view);
  zoom = within(wanted, 1, deepest());
  layout();
  scroller.scrollLeft = (anchor / duration) * width() - inside;
  draw();
};
// Where the playhead and the handles of the chosen segment are.
const place = () => {
  const x = (t) => `translateX(${(t / duration) * width()}px)`;
  head.style.transform = x(now);
  const item = preview || items.get(chosen), there = Boolean(item) && lanes.includes(item.label) && item.state !== REJECTED && isShown(item);
  for (const [id, edge, far] of [["from", "start", "end"], ["to", "end", "start"]]) {
    const handle = $(id);
    handle.hidden = !there || isMoment(item);
    if (handle.hidden) continue;
    handle.style.transform = x(item[edge]);
    handle.style.top = laneTop(item.label) + "px";
    const [low, high] = limits(item, edge);
    handle.setAttribute("aria-valuemin", low.toFixed(2));
    handle.setAttribute("aria-valuemax", high.toFixed(2));
    handle.setAttribute("aria-valuenow", item[edge].toFixed(2));
    handle.setAttribute("aria-valuetext", `${clock(item[edge])}, ${told(item)}, ${clock(Math.abs(item[edge] - item[far]))} long`);
  }
};
const follow = () => {
  const at = (now / duration) * width(), view = scroller.clientWidth;
  if (at < scroller.scrollLeft || at > scroller.scrollLeft + view - 12) scroller.scrollLeft = at - view * 0.15;
};
// What is under the mouse or the finger: the time, the segment, and whether it is the segment's edge.
const under = (event) => {
  const box = canvas.getBoundingClientRect(), px = event.clientX - box.left, py = event.clientY - box.top;
  const scale = width() / duration, time = within((px + scroller.scrollLeft) / scale, 0, duration);
  const label = lanes[Math.floor((py - AXIS - curvesHigh) / LANE)];
  const near = 4 / scale; // a segment may be thinner than a finger
  const hits = py < AXIS + curvesHigh ? [] : shown.filter((s) => s.label === label && s.start - near <= time && time <= s.end + near);
  const distance = (s) => Math.max(s.start - time, time - s.end, 0);
  const item = hits.sort((a, b) => distance(a) - distance(b) || a.end - a.start - (b.end - b.start))[0];
  const grip = Math.min(5 / scale, item ? (item.end - item.start) / 4 : 0) + near;
  const edge = !item || isMoment(item) || item.state === REJECTED ? null
    : Math.abs(time - item.start) < grip ? "start" : Math.abs(time - item.end) < grip ? "end" : null;
  return { time, item, edge };
};
