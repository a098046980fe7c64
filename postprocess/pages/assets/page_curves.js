// The curves over the lanes, for those who open the details.
const CURVES = 96; // pixels
const curves = data.curves && (() => {
  const times = new Float32Array(bytes(data.curves.times).buffer);
  const lines = data.curves.lines.map((l) => ({ ...l, values: new Uint16Array(bytes(l.values).buffer) }));
  return { start: times.filter((_, i) => i % 2 === 0), end: times.filter((_, i) => i % 2 === 1), lines };
})();
// Drawing curves is slow, so they are drawn again only after a change of zoom, place, filter or theme.
const keptCanvas = document.createElement("canvas");
let keptFor = "";
const curvesBehind = (view, left, ratio) => {
  const ink = style("--ink"), key = [view, left, width(), ratio, ink, [...hidden]].join();
  if (key !== keptFor) {
    keptFor = key;
    keptCanvas.width = Math.round(view * ratio);
    keptCanvas.height = Math.round((AXIS + CURVES) * ratio);
    const scale = width() / duration, brush = keptCanvas.getContext("2d");
    brush.setTransform(ratio, 0, 0, ratio, 0, 0);
    paintCurves(brush, (t) => t * scale - left, left / scale, (left + view) / scale, ink);
  }
  return keptCanvas;
};
// Which line is which.
const values = []; // elements
const legendOfCurves = () => {
  for (const { label } of curves.lines) {
    const dash = made("span", { className: "swatch" });
    dash.style.background = label === null ? "var(--faint)" : rgba(label, 1);
    const what = label === null ? "grey: any action at all" : nameOf(label);
    values.push(made("span", { className: "value" }));
    $("lines").append(made("li", {}, dash, made("span", { dir: "auto", textContent: what }), values.at(-1)));
  }
};
const paintCurves = (brush, x, from, to, ink) => {
  const first = Math.max(0, after(curves.end, from) - 1), last = Math.min(curves.start.length, after(curves.start, to) + 1);
  const y = (v) => AXIS + CURVES - 6 - (v / 65535) * (CURVES - 14);
  for (const line of curves.lines) {
    if (line.label !== null && hidden.has(line.label)) continue;
    brush.strokeStyle = line.label === null ? ink : rgba(line.label, 1);
    brush.lineWidth = line.label === null ? 1.6 : 1.2;
    brush.globalAlpha = line.label === null ? 0.55 : 1;
    brush.beginPath();
    // If several snippets share a pixel, the highest is drawn, because people look for peaks.
    let column = null, top = 0, begun = false, gone = null;
    const put = () => { if (column !== null) { begun ? brush.lineTo(column, y(top)) : brush.moveTo(column, y(top)); begun = true; } };
    for (let i = first; i < last; i++) {
      const middle = x((curves.start[i] + curves.end[i]) / 2), at = Math.round(middle);
      if (gone !== null && curves.start[i] - gone > 2 * (curves.end[i] - curves.start[i])) { put(); column = null; begun = false; }
      if (at !== column) { put(); column = at; top = line.values[i]; } else top = Math.max(top, line.values[i]);
      gone = curves.end[i];
    }
    put();
    brush.stroke();
  }
};
// What the lines say at this moment, beside their names.
const curvesNow = () => {
  if (!curves || !curvesHigh) return;
  const i = after(curves.start, now) - 1, there = i >= 0 && now <= curves.end[i];
  curves.lines.forEach((line, k) => {
    const text = there ? percent(line.values[i] / 65535) : "–";
    if (values[k].textContent !== text) values[k].textContent = text;
  });
};
