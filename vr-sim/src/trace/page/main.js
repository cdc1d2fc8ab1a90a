// The controls: filter, window, hovering, keys. What tests look at stands in the body's data attributes.
const $ = (id) => document.getElementById(id), shown = document.body.dataset;
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const LEAST = 1000;
let pending = false;
function show() {
  const { inside, drawn } = draw();
  shown.messages = messages.length; shown.matching = matching.length; shown.visible = inside; shown.arrows = drawn;
  shown.from = Math.round(sight.from); shown.to = Math.round(sight.to);
  const first = arrows.find((a) => a.x1 >= LEFT && a.x2 <= size.width - 12);
  shown.arrow = first ? `${(first.x1 + first.x2) / 2},${(first.y1 + first.y2) / 2},${first.m.serial}` : "";
  $("window").textContent = `${seconds(sight.from)} to ${seconds(sight.to)}: ${inside} of ${matching.length} messages`;
  const width = sight.to - sight.from, whole = end - begin;
  $("slider").value = whole > width ? (sight.from - begin) / (whole - width) * 10000 : 0;
  $("zoom").value = whole > LEAST ? Math.log(whole / width) / Math.log(whole / LEAST) * 1000 : 0;
}
const refresh = () => { if (!pending) { pending = true; requestAnimationFrame(() => { pending = false; show(); }); } };
function look(from, width) {
  const span = clamp(width, Math.min(LEAST, end - begin), end - begin);
  sight.from = clamp(from, begin, end - span); sight.to = sight.from + span;
  refresh();
}
const span = () => sight.to - sight.from;
const pan = (share) => look(sight.from + span() * share, span());
const zoomBy = (factor, about = (sight.from + sight.to) / 2) => look(about - (about - sight.from) * factor, span() * factor);
const LANDMARKS = new Set(["crashed", "started", "wiped", "paused", "stopped", "cut", "partition", "healed", "clogged", "disk", "violated", "failed"]);
function toMark(forward) {
  const middle = (sight.from + sight.to) / 2, landmarks = marks.filter((m) => LANDMARKS.has(m.type));
  const next = forward ? landmarks.find((m) => m.at > middle + 1) : landmarks.findLast((m) => m.at < middle - 1);
  if (next) look(next.at - span() / 2, span());
}

document.title = data.title || "A group's trace";
$("title").textContent = data.title || "A group's trace";
$("facts").textContent = `${data.count} events, fingerprint ${data.fingerprint}` + (data.dropped ? `; ${data.dropped} older events were dropped` : "");
if (data.failure) {
  $("banner").hidden = false;
  $("headline").textContent = data.failure.headline;
  $("found").textContent = `${data.failure.found}\nat ${seconds(data.failure.at)}`;
  $("jump").onclick = () => look(data.failure.at - 15e6, 20e6);
}
const counts = new Map();
for (const m of messages) counts.set(m.kind, (counts.get(m.kind) ?? 0) + 1);
for (const kind of Object.keys(colourOf).filter((kind) => counts.has(kind))) {
  const button = document.createElement("button"), count = document.createElement("small");
  button.type = "button"; button.textContent = `${kind} `; button.dataset.kind = kind; button.dataset.count = counts.get(kind);
  button.style.setProperty("--colour", colourOf[kind]); button.setAttribute("aria-pressed", "true");
  count.textContent = counts.get(kind); button.append(count);
  button.title = "click to hide or show, double click to show it alone";
  const sync = () => { for (const b of $("kinds").children) b.setAttribute("aria-pressed", String(!filter.hidden.has(b.dataset.kind))); applyFilter(); refresh(); };
  button.onclick = () => { if (!filter.hidden.delete(kind)) filter.hidden.add(kind); sync(); };
  button.ondblclick = () => { filter.hidden = new Set([...counts.keys()].filter((other) => other !== kind)); sync(); };
  $("kinds").append(button);
}
data.actors.forEach((name, index) => $("actor").append(new Option(name, index)));
$("actor").onchange = () => { filter.actor = $("actor").value === "" ? -1 : Number($("actor").value); applyFilter(); refresh(); };
$("search").oninput = () => { filter.text = $("search").value; applyFilter(); refresh(); };
$("tools").onsubmit = (event) => event.preventDefault();
$("back").onclick = () => pan(-.3); $("on").onclick = () => pan(.3);
$("in").onclick = () => zoomBy(.5); $("out").onclick = () => zoomBy(2);
$("whole").onclick = () => look(begin, end - begin); $("mark").onclick = () => toMark(true);
$("slider").oninput = () => look(begin + (end - begin - span()) * $("slider").value / 10000, span());
$("zoom").oninput = () => {
  const width = (end - begin) * (LEAST / (end - begin)) ** ($("zoom").value / 1000);
  look((sight.from + sight.to) / 2 - width / 2, width);
};
const legend = [["client", "clients"], ["normal", "normal operation"], ["view", "view change"], ["alive", "signs of life"], ["transfer", "state transfer"], ["read", "reads"], ["found", "founding"]]
  .map(([name, words]) => [`background:${CLASSES[name][0]}`, words]);
legend.push(["background:repeating-linear-gradient(90deg,#888 0 6px,#0000 6px 10px)", "held (dashed), copy (dotted)"], ["background:#c4253a", "lost (a stub with a cross)"],
  ["background:repeating-linear-gradient(135deg,#888 0 3px,#0000 3px 7px)", "view change, recovering, blank"], ["background:#8884", "down"]);
for (const [style, words] of legend) {
  const item = document.createElement("span"), sample = document.createElement("i");
  sample.style.cssText = style; item.append(sample, words); $("legend").append(item);
}
$("legend").append("lane colour: the view; strong with a line on top: its primary; c commit, a applied.  \u2715 crash  \u25b6 start  \u2702 cut  \u2661 healed  \u2016 pause  \u00bb goes on  \u26c1 disk fault");

const distance = (a, px, py) => {
  const dx = a.x2 - a.x1, dy = a.y2 - a.y1, t = clamp(((px - a.x1) * dx + (py - a.y1) * dy) / (dx * dx + dy * dy || 1), 0, 1);
  return Math.hypot(px - a.x1 - t * dx, py - a.y1 - t * dy);
};
function under(px, py) {
  for (const mark of shownMarks) if (Math.hypot(px - mark.x, py - mark.y) < 9) return mark.m;
  let best = null, least = 7;
  for (const a of arrows) { const d = distance(a, px, py); if (d < least) { least = d; best = a.m; } }
  return best;
}
function hover(px, py) {
  const found = px < LEFT ? null : under(px, py), tip = $("tip");
  if (found !== hovered) { hovered = found; refresh(); }
  shown.hovered = found?.serial ?? found?.type ?? "";
  tip.hidden = !found;
  if (!found) return;
  const head = document.createElement("b");
  head.textContent = found.kind ?? found.type;
  tip.replaceChildren(head, found.kind ? wordsOf(found) : `${found.text}\nat ${seconds(found.at)}`);
  tip.style.left = `${clamp(px + 14, 0, size.width - tip.offsetWidth - 8)}px`;
  tip.style.top = `${clamp(py + 14, 0, size.height - tip.offsetHeight - 8)}px`;
}
let drag = null;
stage.onpointerdown = (event) => { drag = { x: event.offsetX, from: sight.from, moved: false }; stage.setPointerCapture(event.pointerId); };
stage.onpointermove = (event) => {
  if (!drag) return hover(event.offsetX, event.offsetY);
  const by = event.offsetX - drag.x;
  if (Math.abs(by) > 3) drag.moved = true;
  if (drag.moved) look(drag.from - by / (size.width - LEFT - 12) * span(), span());
};
stage.onpointerup = () => {
  if (drag && !drag.moved) {
    $("pinned").hidden = !hovered;
    if (hovered) $("pinned").textContent = hovered.kind ? `${hovered.kind}   ${wordsOf(hovered)}` : hovered.text;
  }
  drag = null;
};
stage.onpointerleave = () => hover(-1, -1);
stage.addEventListener("wheel", (event) => {
  event.preventDefault();
  if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) pan((event.deltaX || event.deltaY) / 1000);
  else zoomBy(Math.exp(event.deltaY / 500), timeAt(event.offsetX));
}, { passive: false });
overview.onpointerdown = overview.onpointermove = (event) => {
  if (event.buttons) look(begin + event.offsetX / overview.clientWidth * (end - begin) - span() / 2, span());
};
addEventListener("keydown", (event) => {
  if (/INPUT|SELECT/.test(event.target.tagName)) { if (event.key === "Escape") event.target.blur(); return; }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const far = event.shiftKey ? 1 : .2;
  const acts = { ArrowLeft: () => pan(-far), ArrowRight: () => pan(far), ArrowUp: () => zoomBy(.5), ArrowDown: () => zoomBy(2), "+": () => zoomBy(.5), "-": () => zoomBy(2),
    Home: () => look(begin, span()), End: () => look(end - span(), span()), 0: () => look(begin, end - begin), n: () => toMark(true), p: () => toMark(false), "/": () => $("search").focus() };
  if (acts[event.key]) { event.preventDefault(); acts[event.key](); }
});
new ResizeObserver(refresh).observe(stage);
dark.addEventListener("change", refresh);
// First: the moment of the violation, or so much of the beginning as can be read.
if (data.failure) look(data.failure.at - 15e6, 20e6);
else look(begin, (messages[Math.min(messages.length - 1, 150)]?.sent ?? end) - begin || end - begin);
show();
shown.ready = "yes";
