// The data as the page needs it: messages by time, what each replica is when, what is filtered.
const data = JSON.parse(document.getElementById("data").textContent);
const CLASSES = {
  client: ["#0f9d8a", "Register Request Reply Rejected Query Answer Forward ForwardReply"],
  normal: ["#3b7dea", "Prepare PrepareOk Commit"],
  view: ["#d6409f", "StartViewChange DoViewChange StartView GetView Handoff"],
  alive: ["#8a93a3", "Ping Pong"],
  transfer: ["#d9822b", "GetHeaders Headers GetEntries Entries"],
  read: ["#8b5cf6", "ReadIndex ReadIndexOk"],
  found: ["#5c9e31", "Hello HelloOk Found FoundOk Recovery RecoveryResponse GetCrashVector CrashVectorIs"],
};
const colourOf = {};
for (const [colour, kinds] of Object.values(CLASSES)) for (const kind of kinds.split(" ")) colourOf[kind] = colour;

const lane = (index) => data.actors[index] ?? "";
let end = 1;
const messages = data.messages.map(([serial, kind, from, to, view, op, sent, ended, lost, held, copy, detail]) => {
  end = Math.max(end, sent, ended ?? 0, held ?? 0);
  return { serial, kind, from, to, view, op, sent, ended, lost, held, copy, detail, until: ended ?? held ?? sent };
}).sort((a, b) => a.sent - b.sent);
const marks = data.marks.map(([at, type, one, other, text]) => {
  end = Math.max(end, at);
  return { at, type, one, other, text };
});
// How things stood before the first event that was kept is older than the picture.
const begin = Math.min(end - 1, messages[0]?.sent ?? 0, data.dropped ? Infinity : marks[0]?.at ?? 0);
end += (end - begin) / 100;
// The latest end of all messages up to and including this one: where a search in time may begin.
let latest = 0;
for (const m of messages) m.reach = latest = Math.max(latest, m.until);

// What a replica is, from one change to the next.
const spans = new Map(data.members.map((member) => [member, []]));
{
  const facts = data.says.map(([at, who, status, view, log, op, commit, applied, serving]) =>
    ({ at, who, set: { status, view, log, op, commit, applied, serving } }));
  const SETS = { started: { up: true, status: "Starting" }, crashed: { up: false, paused: false },
    stopped: { up: false }, paused: { paused: true }, resumed: { paused: false } };
  for (const m of marks) if (SETS[m.type]) facts.push({ at: m.at, who: m.one, set: SETS[m.type] });
  facts.sort((a, b) => a.at - b.at);
  const now = new Map();
  for (const { at, who, set } of facts) {
    if (!spans.has(who)) continue;
    const was = now.get(who) ?? { paused: false, ...(set.view === undefined ? {} : set), up: set.view !== undefined, at: begin };
    const next = { ...was, ...set, at };
    if (was.up || set.up !== undefined || set.status) {
      if (!set.up && set.status) next.up = true;
      spans.get(who).push({ ...was, until: at });
    }
    now.set(who, next);
  }
  for (const [who, last] of now) spans.get(who).push({ ...last, until: end });
  for (const list of spans.values()) for (let i = list.length - 1; i >= 0; i--) if (list[i].until <= list[i].at) list.splice(i, 1);
}
const primaryOf = (view) => data.members[view % data.members.length];

const seconds = (ns) => ns < 1e6 ? `${(ns / 1e3).toFixed(1)} us` : ns < 1e9 ? `${(ns / 1e6).toFixed(3)} ms` : `${(ns / 1e9).toFixed(6)} s`;
const fateOf = (m) => m.lost ? `lost at ${seconds(m.ended)}: ${m.lost.toLowerCase()}`
  : m.ended !== null ? `delivered at ${seconds(m.ended)}, after ${seconds(m.ended - m.sent)}`
  : m.held !== null ? "held back to the end" : "on its way at the end";
const wordsOf = (m) => [
  `${lane(m.from)} > ${lane(m.to)}   view ${m.view}   op ${m.op}`,
  m.detail.replaceAll(", ", "\n"),
  `#${m.serial}${m.copy ? ", a copy" : ""}, sent at ${seconds(m.sent)}`,
  m.held !== null ? `held at ${seconds(m.held)}` : "", fateOf(m),
].filter(Boolean).join("\n");

const filter = { hidden: new Set(), actor: -1, text: "" };
let matching = messages;
const textOf = (m) => m.text ??= `${m.kind} ${lane(m.from)} > ${lane(m.to)} view ${m.view} op ${m.op} #${m.serial} ${m.detail} ${m.lost ? "lost" : ""}`.toLowerCase();
function applyFilter() {
  const text = filter.text.trim().toLowerCase();
  matching = messages.filter((m) => !filter.hidden.has(m.kind)
    && (filter.actor < 0 || m.from === filter.actor || m.to === filter.actor)
    && (!text || textOf(m).includes(text)));
  let reach = 0;
  for (const m of matching) m.reach = reach = Math.max(reach, m.until);
}
// The first place in an ascending list for which `holds` is true.
function firstPlace(list, holds) {
  let low = 0, high = list.length;
  while (low < high) { const mid = (low + high) >> 1; if (holds(list[mid])) high = mid; else low = mid + 1; }
  return low;
}
const between = (from, to) => {
  const found = [];
  for (let i = firstPlace(matching, (m) => m.reach >= from); i < matching.length && matching[i].sent <= to; i++)
    if (matching[i].until >= from) found.push(matching[i]);
  return found;
};
