// The player: where it is, where it goes, and that a segment is played to its end and no further.
let stopAt = null; // seconds

const ats = [...document.querySelectorAll(".at")]; // what the buttons call "now"
// The next (1) or previous (-1) segment. One that starts at this very moment is next, too, until it is chosen: the first
// one of a video may start at 0, and several may start together.
const neighbour = (direction) => {
  const here = shown.findIndex((s) => s.id === chosen && Math.abs(s.start - now) < 0.05);
  if (here >= 0) return shown[here + direction];
  return direction > 0 ? shown.find((s) => s.start > now - 0.05) : shown.filter((s) => s.start < now - 0.05).at(-1);
};
const tell = () => {
  const playing = shown.filter((s) => s.start <= now && now < s.end && s.state !== REJECTED).sort((a, b) => b.confidence - a.confidence);
  const found = (playing.find((s) => s.id === chosen) || playing[0])?.id ?? null;
  if (found !== current) {
    rows.get(current)?.removeAttribute("aria-current");
    current = found;
    if (found !== null) {
      rows.get(found).setAttribute("aria-current", "true");
      reveal(rows.get(found));
    }
    draw();
  }
  const time = clock(now);
  for (const at of ats) if (at.textContent !== time) at.textContent = time;
  able("previous", Boolean(neighbour(-1)), "No segment starts before this moment.");
  able("next", Boolean(neighbour(1)), "No segment starts after this moment.");
  $("now").textContent = time + " of " + clock(duration);
  curvesNow();
  if (marks.start !== null && marks.end === null) draw();
};
const show = (time) => { now = within(time, 0, duration); place(); tell(); };
const seek = (time, end = null) => {
  stopAt = end;
  // Slightly later, or a player would show the frame that ends there.
  const wanted = within(time, 0, duration);
  if (video.readyState > 0) video.currentTime = Math.min(wanted + 0.001, video.duration || wanted);
  show(wanted);
  follow();
};
const run = () => video.play().catch(() => {});
const play = (item) => { seek(isMoment(item) ? item.start - 1 : item.start, isMoment(item) ? item.start + 1 : item.end); run(); };
const jump = (direction) => {
  const next = neighbour(direction);
  if (!next) return say($(direction > 0 ? "next" : "previous").title);
  choose(next);
  seek(next.start);
};
const toggle = () => {
  if (!video.paused) return video.pause();
  const item = items.get(chosen);
  // After N and P the space bar plays what was gone to.
  if (item && stopAt === null && Math.abs(now - item.start) < 0.05 && !isMoment(item)) stopAt = item.end;
  run();
};
const tick = () => {
  show(video.currentTime);
  follow();
  if (stopAt !== null && now >= stopAt) {
    video.pause();
    seek(stopAt); // a slow machine notices late
  }
  if (!video.paused && !video.ended) requestAnimationFrame(tick);
};
const lost = () => { $("missing").hidden = false; video.hidden = true; document.body.classList.add("lost"); $("place").textContent = decodeURI(data.link); };
const listenToPlayer = () => {
  video.addEventListener("play", () => requestAnimationFrame(tick));
  for (const name of ["seeked", "timeupdate", "pause"]) video.addEventListener(name, () => { if (!video.seeking) show(video.currentTime); });
  // A person who moves the player's own slider does not want it to stop somewhere.
  video.addEventListener("seeking", () => { if (stopAt !== null && (video.currentTime > stopAt || video.currentTime < now - 1)) stopAt = null; });
  video.addEventListener("loadedmetadata", () => {
    if (data.duration > 0 || !isFinite(video.duration)) return;
    duration = video.duration; // the file's header did not say it
    decide();
  });
  video.addEventListener("error", lost);
  $("file").addEventListener("change", (event) => {
    if (event.target.files[0]) { video.src = URL.createObjectURL(event.target.files[0]); $("missing").hidden = true; video.hidden = false; document.body.classList.remove("lost"); }
  });
};
