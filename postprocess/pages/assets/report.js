"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  const duration = Math.max(data.duration, 1e-3);
  const video = $("video"), scroller = $("scroller"), stage = $("stage"), canvas = $("canvas"), head = $("playhead");
  const pen = canvas.getContext("2d");
  const AXIS = 22, CURVES = data.curves ? 96 : 0, LANE = 36, DEEPEST = 200; // pixels; pixels a second at most
  const segments = data.segments.map(([start, end, confidence, score, label], i) => ({ start, end, confidence, score, label, i }));
  const hidden = new Set();
  let zoom = 1, now = 0, shown = [], lanes = [], sort = { key: "start", up: true }, current = null, queued = false;

  // --- numbers ---
  const clock = (s, digits = 2) => {
    const unit = 10 ** digits, total = Math.round(s * unit), whole = Math.floor(total / unit);
    const pad = (n) => String(n).padStart(2, "0");
    const rest = digits ? "." + String(total % unit).padStart(digits, "0") : "";
    const hours = Math.floor(whole / 3600), minutes = Math.floor(whole / 60) % 60;
    return (hours ? hours + ":" + pad(minutes) : minutes) + ":" + pad(whole % 60) + rest;
  };
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const curves = data.curves && (() => {
    const times = new Float32Array(bytes(data.curves.times).buffer);
    const lines = data.curves.lines.map((l) => ({ ...l, values: new Uint16Array(bytes(l.values).buffer) }));
    return { start: times.filter((_, i) => i % 2 === 0), end: times.filter((_, i) => i % 2 === 1), lines };
  })();
  // First index whose value is greater.
  const after = (list, value) => {
    let low = 0, high = list.length;
    while (low < high) { const middle = (low + high) >> 1; if (list[middle] > value) high = middle; else low = middle + 1; }
    return low;
  };
  const rgba = (label, alpha) => { const c = data.colours[label]; return `rgba(${c[0]},${c[1]},${c[2]},${alpha})`; };
  const opacity = (confidence) => 0.22 + 0.78 * confidence;
  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // --- what is shown ---
  const decide = () => {
    const level = Number($("threshold").value);
    $("level").value = level.toFixed(2);
    shown = segments.filter((s) => s.confidence >= level - 1e-9 && !hidden.has(s.label));
    const sure = segments.filter((s) => s.confidence >= level - 1e-9);
    $("count").value = `${shown.length} of ${segments.length} segments`;
    for (const box of $("classes").querySelectorAll("input")) {
      const own = sure.filter((s) => s.label === Number(box.value));
      box.closest("label").querySelector(".sum").textContent =
        `${own.length} · ${clock(own.reduce((sum, s) => sum + s.end - s.start, 0), 0)}`;
    }
    lanes = data.labels.map((_, label) => label).filter((label) => !hidden.has(label));
    const visible = new Set(shown.map((s) => s.i));
    for (const row of $("body").rows) {
      const hide = !visible.has(Number(row.dataset.i));
      if (row.hidden !== hide) row.hidden = hide;
    }
    $("empty").hidden = shown.length > 0;
    layout();
  };

  // --- table ---
  const COLUMNS = [
    ["start", "start", ""], ["end", "end", "wide"], ["length", "length", "wide"], ["action", "label", "text"],
    ["confidence", "confidence", ""], ["score", "score", "wide"],
  ];
  const value = (s, key) => (key === "length" ? s.end - s.start : key === "label" ? data.labels[s.label] : s[key]);
  const fill = () => {
    const body = $("body");
    for (const s of segments) {
      const row = document.createElement("tr");
      row.dataset.i = s.i;
      const texts = [clock(s.start), clock(s.end), (s.end - s.start).toFixed(2) + " s", data.labels[s.label], s.confidence.toFixed(2), s.score.toFixed(2)];
      texts.forEach((text, c) => {
        const cell = document.createElement("td");
        cell.className = COLUMNS[c][2];
        if (c === 0) {
          const button = document.createElement("button");
          button.type = "button";
          button.className = "seek";
          button.textContent = text;
          button.setAttribute("aria-label", `${data.labels[s.label]}, from ${text}`);
          cell.append(button);
        } else cell.textContent = text;
        row.append(cell);
      });
      body.append(row);
    }
    COLUMNS.forEach(([name, key, kind]) => {
      const cell = document.createElement("th");
      cell.scope = "col";
      cell.className = kind;
      cell.dataset.key = key === "length" ? "length" : key;
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = name;
      button.addEventListener("click", () => {
        sort = { key: cell.dataset.key, up: sort.key === cell.dataset.key ? !sort.up : !["confidence", "score"].includes(key) };
        order();
      });
      cell.append(button);
      $("columns").append(cell);
    });
    body.addEventListener("click", (event) => {
      const row = event.target.closest("tr");
      if (row) seek(segments[Number(row.dataset.i)].start);
    });
  };
  const order = () => {
    for (const cell of $("columns").children) {
      cell.setAttribute("aria-sort", cell.dataset.key === sort.key ? (sort.up ? "ascending" : "descending") : "none");
    }
    const compare = (a, b) => {
      const x = value(a, sort.key), y = value(b, sort.key);
      return (typeof x === "string" ? x.localeCompare(y) : x - y) * (sort.up ? 1 : -1) || a.start - b.start || a.i - b.i;
    };
    const rows = new Map([...$("body").rows].map((row) => [Number(row.dataset.i), row]));
    $("body").append(...[...segments].sort(compare).map((s) => rows.get(s.i)));
  };

  // --- time line ---
  const width = () => stage.clientWidth || 1; // of the whole video at this zoom, pixels
  const layout = () => {
    const view = scroller.clientWidth, ratio = window.devicePixelRatio || 1;
    stage.style.width = Math.round(view * zoom) + "px";
    const height = AXIS + CURVES + Math.max(1, lanes.length) * LANE + 6;
    canvas.style.width = view + "px";
    canvas.style.height = height + "px";
    if (canvas.width !== Math.round(view * ratio)) canvas.width = Math.round(view * ratio);
    if (canvas.height !== Math.round(height * ratio)) canvas.height = Math.round(height * ratio);
    place();
    draw();
  };
  const draw = () => {
    if (queued) return;
    queued = true;
    requestAnimationFrame(() => { queued = false; paint(); });
  };
  const paint = () => {
    const ratio = window.devicePixelRatio || 1, view = scroller.clientWidth, left = scroller.scrollLeft;
    const scale = width() / duration, x = (t) => t * scale - left;
    const from = left / scale, to = (left + view) / scale;
    const ink = style("--ink"), faint = style("--faint"), line = style("--line");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, view, canvas.height);
    pen.font = "12px system-ui, 'DejaVu Sans', sans-serif";
    pen.textBaseline = "middle";
    const step = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600].find((s) => s * scale >= 78) || 7200;
    for (let k = Math.ceil(from / step); k * step <= to; k++) {
      pen.fillStyle = line;
      pen.fillRect(Math.round(x(k * step)), 0, 1, canvas.height / ratio);
      pen.fillStyle = faint;
      pen.fillText(clock(k * step, step < 1 ? 1 : 0), x(k * step) + 4, AXIS / 2);
    }
    if (curves) pen.drawImage(curvesBehind(view, left, ratio), 0, 0, view, AXIS + CURVES);
    lanes.forEach((label, row) => {
      const top = AXIS + CURVES + row * LANE;
      pen.fillStyle = line;
      pen.fillRect(0, top, view, 1);
      for (const s of shown) {
        if (s.label !== label || s.end < from || s.start > to) continue;
        const begin = x(s.start), wide = Math.max(2, (s.end - s.start) * scale - 1);
        pen.fillStyle = rgba(label, opacity(s.confidence));
        pen.fillRect(begin, top + 18, wide, 14);
        pen.strokeStyle = rgba(label, 1);
        if (wide > 3) pen.strokeRect(begin + 0.5, top + 18.5, wide - 1, 13);
        if (s === current) {
          pen.strokeStyle = ink;
          pen.lineWidth = 2;
          pen.strokeRect(begin, top + 17, wide, 16);
          pen.lineWidth = 1;
        }
      }
      pen.fillStyle = ink;
      pen.fillText(data.labels[label], 6, top + 9, view - 12);
    });
  };
  // Drawing curves is slow, so they are drawn again only after a change of zoom, place, filter or theme.
  const kept = document.createElement("canvas");
  let keptFor = "";
  const curvesBehind = (view, left, ratio) => {
    const ink = style("--ink"), key = [view, left, width(), ratio, ink, [...hidden]].join();
    if (key !== keptFor) {
      keptFor = key;
      kept.width = Math.round(view * ratio);
      kept.height = Math.round((AXIS + CURVES) * ratio);
      const scale = width() / duration, brush = kept.getContext("2d");
      brush.setTransform(ratio, 0, 0, ratio, 0, 0);
      paintCurves(brush, (t) => t * scale - left, left / scale, (left + view) / scale, ink);
    }
    return kept;
  };
  const paintCurves = (pen, x, from, to, ink) => {
    const first = Math.max(0, after(curves.end, from) - 1), last = Math.min(curves.start.length, after(curves.start, to) + 1);
    const y = (v) => AXIS + CURVES - 6 - (v / 65535) * (CURVES - 14);
    for (const line of curves.lines) {
      if (line.label !== null && hidden.has(line.label)) continue;
      pen.strokeStyle = line.label === null ? ink : rgba(line.label, 1);
      pen.lineWidth = line.label === null ? 1.6 : 1.2;
      pen.globalAlpha = line.label === null ? 0.55 : 1;
      pen.beginPath();
      // If several snippets share a pixel, the highest is drawn, because people look for peaks.
      let column = null, top = 0, begun = false, gone = null;
      const put = () => { if (column !== null) { begun ? pen.lineTo(column, y(top)) : pen.moveTo(column, y(top)); begun = true; } };
      for (let i = first; i < last; i++) {
        const middle = x((curves.start[i] + curves.end[i]) / 2), at = Math.round(middle);
        if (gone !== null && curves.start[i] - gone > 2 * (curves.end[i] - curves.start[i])) { put(); column = null; begun = false; }
        if (at !== column) { put(); column = at; top = line.values[i]; } else top = Math.max(top, line.values[i]);
        gone = curves.end[i];
      }
      put();
      pen.stroke();
    }
  };
  const setZoom = (wanted, anchor = now) => {
    const view = scroller.clientWidth, limit = Math.max(1, (duration * DEEPEST) / view);
    const inside = Math.min(view, Math.max(0, anchor * (width() / duration) - scroller.scrollLeft));
    zoom = Math.min(limit, Math.max(1, wanted));
    layout();
    scroller.scrollLeft = (anchor / duration) * width() - inside;
    draw();
  };
  const place = () => {
    head.style.transform = `translateX(${(now / duration) * width()}px)`;
  };
  const follow = () => {
    const at = (now / duration) * width(), view = scroller.clientWidth;
    if (at < scroller.scrollLeft || at > scroller.scrollLeft + view - 12) scroller.scrollLeft = at - view * 0.15;
  };

  // --- time ---
  const tell = () => {
    const found = shown.filter((s) => s.start <= now && now < s.end).sort((a, b) => b.confidence - a.confidence)[0] || null;
    if (found !== current) {
      for (const row of $("body").querySelectorAll("[aria-current]")) row.removeAttribute("aria-current");
      current = found;
      if (found) {
        const row = $("body").querySelector(`tr[data-i="${found.i}"]`);
        row.setAttribute("aria-current", "true");
        const box = row.closest(".rows"), y = row.offsetTop;
        if (box.scrollHeight > box.clientHeight + 4 && (y < box.scrollTop + 40 || y > box.scrollTop + box.clientHeight - 40)) box.scrollTop = y - box.clientHeight / 2;
      }
      draw();
    }
    const parts = [clock(now) + " of " + clock(duration)];
    if (curves) {
      const i = after(curves.start, now) - 1;
      if (i >= 0 && now <= curves.end[i]) {
        const at = (line) => (line.values[i] / 65535).toFixed(2);
        parts.push("actionness " + at(curves.lines[0]));
        const best = curves.lines.slice(1).filter((l) => !hidden.has(l.label)).sort((a, b) => b.values[i] - a.values[i]);
        for (const line of best.slice(0, 2)) parts.push(`${data.labels[line.label]} ${at(line)}`);
      }
    }
    $("now").textContent = parts.join(" · ");
  };
  const show = (time) => { now = Math.min(duration, Math.max(0, time)); place(); tell(); };
  const seek = (time) => {
    // Slightly later, or a player would show the frame that ends there.
    const wanted = Math.min(duration, Math.max(0, time));
    if (video.readyState > 0) video.currentTime = Math.min(wanted + 0.001, video.duration || wanted);
    show(wanted);
    follow();
  };
  const jump = (direction) => {
    const starts = [...new Set(shown.map((s) => s.start))].sort((a, b) => a - b);
    const to = direction > 0 ? starts.find((t) => t > now + 0.05) : starts.reverse().find((t) => t < now - 0.05);
    if (to !== undefined) seek(to);
  };
  const tick = () => {
    show(video.currentTime);
    follow();
    if (!video.paused && !video.ended) requestAnimationFrame(tick);
  };
  const toggle = () => { if (video.paused) video.play().catch(() => {}); else video.pause(); };

  // --- ears ---
  video.addEventListener("play", () => requestAnimationFrame(tick));
  for (const name of ["seeked", "timeupdate", "pause"]) video.addEventListener(name, () => { if (!video.seeking) show(video.currentTime); });
  const lost = () => { $("missing").hidden = false; $("place").textContent = decodeURI(data.link); };
  video.addEventListener("error", lost);
  $("file").addEventListener("change", (event) => {
    if (event.target.files[0]) { video.src = URL.createObjectURL(event.target.files[0]); $("missing").hidden = true; }
  });
  $("threshold").addEventListener("input", () => { decide(); tell(); });
  $("previous").addEventListener("click", () => jump(-1));
  $("next").addEventListener("click", () => jump(1));
  $("in").addEventListener("click", () => setZoom(zoom * 2));
  $("out").addEventListener("click", () => setZoom(zoom / 2));
  $("fit").addEventListener("click", () => setZoom(1));
  $("theme").addEventListener("click", () => {
    const root = document.documentElement, dark = matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = (root.dataset.theme || (dark ? "dark" : "light")) === "dark" ? "light" : "dark";
    draw();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  scroller.addEventListener("scroll", draw, { passive: true });
  scroller.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    const box = canvas.getBoundingClientRect();
    setZoom(zoom * (event.deltaY < 0 ? 1.25 : 0.8), ((event.clientX - box.left + scroller.scrollLeft) / width()) * duration);
  }, { passive: false });
  const under = (event) => {
    const box = canvas.getBoundingClientRect(), px = event.clientX - box.left, py = event.clientY - box.top;
    const scale = width() / duration, time = (px + scroller.scrollLeft) / scale;
    const label = lanes[Math.floor((py - AXIS - CURVES) / LANE)];
    const near = 4 / scale; // a segment may be thinner than a finger
    const hits = py < AXIS + CURVES ? [] : shown.filter((s) => s.label === label && s.start - near <= time && time <= s.end + near);
    const distance = (s) => Math.max(s.start - time, time - s.end, 0);
    return { time, segment: hits.sort((a, b) => distance(a) - distance(b) || a.end - a.start - (b.end - b.start))[0] };
  };
  canvas.addEventListener("click", (event) => {
    const { time, segment } = under(event);
    seek(segment ? segment.start : time);
  });
  canvas.addEventListener("mousemove", (event) => {
    const { time, segment } = under(event);
    canvas.title = segment ? `${data.labels[segment.label]}  ${clock(segment.start)} – ${clock(segment.end)}  ${segment.confidence.toFixed(2)}` : clock(time);
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const on = event.target;
    const types = on.matches("input[type=range], input[type=file], select, textarea");
    const presses = on.matches("button:not(.seek), input[type=checkbox], summary");
    const keys = {
      " ": () => !types && !presses && (toggle(), true),
      ArrowLeft: () => !types && (seek(now - (event.shiftKey ? 5 : 1)), true),
      ArrowRight: () => !types && (seek(now + (event.shiftKey ? 5 : 1)), true),
      ArrowDown: () => !types && !on.matches(".rows") && (jump(1), true),
      ArrowUp: () => !types && !on.matches(".rows") && (jump(-1), true),
      n: () => (jump(1), true), N: () => (jump(1), true), p: () => (jump(-1), true), P: () => (jump(-1), true),
      "+": () => (setZoom(zoom * 2), true), "-": () => (setZoom(zoom / 2), true), 0: () => (setZoom(1), true),
    };
    if (keys[event.key] && keys[event.key]()) event.preventDefault();
  }, true); // capture the keys before the player, which has its own
  new ResizeObserver(layout).observe(scroller);

  // --- begin ---
  data.labels.forEach((name, label) => {
    const row = document.createElement("label"), box = document.createElement("input");
    box.type = "checkbox";
    box.checked = true;
    box.value = label;
    box.addEventListener("change", () => { box.checked ? hidden.delete(label) : hidden.add(label); decide(); tell(); });
    const swatch = document.createElement("span"), text = document.createElement("span"), sum = document.createElement("span");
    swatch.className = "swatch";
    swatch.style.background = rgba(label, 1);
    text.className = "name";
    text.textContent = name;
    sum.className = "sum";
    row.append(box, swatch, text, sum);
    $("classes").append(row);
  });
  if (!data.labels.length) $("classes").textContent = "nothing was found";
  const legend = $("legend");
  if (data.labels.length) {
    const ramp = document.createElement("span");
    ramp.className = "ramp";
    ramp.style.background = `linear-gradient(90deg, ${rgba(0, opacity(0))}, ${rgba(0, 1)})`;
    const scale = document.createElement("span");
    scale.append("confidence 0 ", ramp, " 1");
    legend.append(scale);
  }
  if (curves) legend.append(document.createTextNode("grey line: actionness; coloured lines: T-CAS, as the probability A · softmax(S)"));
  const film = $("film").textContent;
  if (film) video.src = URL.createObjectURL(new Blob([bytes(film)], { type: "video/mp4" }));
  else if (data.link) video.src = data.link;
  else video.hidden = true;
  $("threshold").min = data.least;
  $("threshold").value = data.level;
  fill();
  order();
  decide();
  show(0);
})();
