//! A trace as one page that needs nothing else: lanes, arrows and marks, drawn by its own script.

use std::collections::{BTreeMap, BTreeSet};

use vr_core::model::time::Instant;

use crate::{
    actor::Actor,
    trace::{
        Trace,
        event::{Event, Fate, Loss, Packet, Standing},
        json::Json,
        recording::Recorded,
    },
};

const HEAD: &str = include_str!("page/head.html");
const STYLE: &str = include_str!("page/style.css");
const BODY: &str = include_str!("page/body.html");
const SCRIPTS: [&str; 3] =
    [include_str!("page/model.js"), include_str!("page/draw.js"), include_str!("page/main.js")];

/// The page that shows `trace`.
#[must_use]
pub fn page_of(trace: &Trace) -> String {
    let mut picture = Picture::default();
    for recorded in trace.standing().into_iter().chain(trace.kept()) {
        picture.add(recorded);
    }
    let data = picture.data(trace);
    let scripts = SCRIPTS.concat();
    format!(
        "{HEAD}<style>\n{STYLE}</style>\n</head>\n<body>\n{BODY}\
         <script type=\"application/json\" id=\"data\">{data}</script>\n\
         <script>\n\"use strict\";\n{scripts}</script>\n</body>\n</html>\n"
    )
}

/// What becomes of the events on the page.
#[derive(Debug, Default)]
struct Picture<'a> {
    actors: BTreeSet<Actor>,
    arrows: Vec<Arrow<'a>>,
    /// By the number of an envelope: the arrows of its copies that have not ended.
    open: BTreeMap<u64, Vec<usize>>,
    /// When an envelope was sent, and what it says.
    sent: BTreeMap<u64, (Instant, &'a str)>,
    marks: Vec<Mark>,
    says: Vec<(Instant, Standing)>,
    failure: Option<(Instant, String, String)>,
}

/// A copy of an envelope from its sending to its end.
#[derive(Debug)]
struct Arrow<'a> {
    packet: Packet,
    sent: Instant,
    held: Option<Instant>,
    ended: Option<(Instant, Option<Loss>)>,
    copy: bool,
    detail: &'a str,
}

/// Anything else that happened, at up to two actors.
#[derive(Debug)]
struct Mark {
    at: Instant,
    class: &'static str,
    actors: [Option<Actor>; 2],
    text: String,
}

impl<'a> Picture<'a> {
    fn add(&mut self, recorded: &'a Recorded) {
        let at = recorded.at;
        match &recorded.event {
            Event::Sent(packet) => self.sent(at, *packet, &recorded.detail),
            Event::Delivered(packet) => self.ended(at, *packet, None),
            Event::Lost(packet, why) => self.ended(at, *packet, Some(*why)),
            Event::Held(packet) => {
                let arrow = self.arrow(at, *packet);
                arrow.held = Some(at);
            }
            Event::Says(standing) => self.says.push((at, *standing)),
            Event::Violated(violation) => {
                let headline = format!("{} violated: {}", violation.oracle, violation.rule);
                self.failed(at, headline, violation.found.clone());
                self.mark(recorded);
            }
            Event::Failed(why) => {
                self.failed(at, "The run failed".to_owned(), why.clone());
                self.mark(recorded);
            }
            Event::Connected(..)
            | Event::Disconnected(..)
            | Event::Stored { .. }
            | Event::Applied { .. }
            | Event::Answered(..)
            | Event::Process(..)
            | Event::Cut(..)
            | Event::Mended(..)
            | Event::Clogged(..)
            | Event::Partitioned(_)
            | Event::Healed
            | Event::Disk(..)
            | Event::Note(_) => self.mark(recorded),
        }
    }

    fn sent(&mut self, at: Instant, packet: Packet, detail: &'a str) {
        self.actors.extend([packet.from, packet.to]);
        self.sent.insert(packet.serial, (at, detail));
        self.open.entry(packet.serial).or_default().push(self.arrows.len());
        let (held, ended, copy) = (None, None, false);
        self.arrows.push(Arrow { packet, sent: at, held, ended, copy, detail });
    }

    fn ended(&mut self, at: Instant, packet: Packet, loss: Option<Loss>) {
        let arrow = self.arrow(at, packet);
        arrow.ended = Some((at, loss));
    }

    /// The first copy that has not ended; another one, if all have.
    fn arrow(&mut self, at: Instant, packet: Packet) -> &mut Arrow<'a> {
        let open = self.open.entry(packet.serial).or_default();
        let arrows = &self.arrows;
        open.retain(|index| arrows.get(*index).is_some_and(|arrow| arrow.ended.is_none()));
        let found = open.first().copied();
        let index = found.unwrap_or(self.arrows.len());
        if found.is_none() {
            // A double, a replay, a forgery, or one that was sent before the recording began.
            let known = self.sent.get(&packet.serial).copied();
            let (sent, detail) = known.unwrap_or((at, ""));
            self.actors.extend([packet.from, packet.to]);
            open.push(index);
            let (held, ended) = (None, None);
            self.arrows.push(Arrow { packet, sent, held, ended, copy: true, detail });
        }
        let last = self.arrows.len() - 1;
        #[expect(clippy::indexing_slicing, reason = "an index of this list, which only grows")]
        &mut self.arrows[index.min(last)]
    }

    /// The first oracle that objects is told; that the run failed, only if none did.
    fn failed(&mut self, at: Instant, headline: String, found: String) {
        self.failure.get_or_insert((at, headline, found));
    }

    fn mark(&mut self, recorded: &Recorded) {
        let (class, actors) = mark_of(&recorded.event);
        self.actors.extend(actors.iter().copied().flatten());
        let text = recorded.event.to_string();
        let text = text.strip_prefix("---").unwrap_or(&text).trim().to_owned();
        self.marks.push(Mark { at: recorded.at, class, actors, text });
    }

    fn data(mut self, trace: &Trace) -> String {
        let about = trace.about();
        self.actors.extend(about.replicas.iter().copied().map(Actor::Replica));
        let actors: Vec<Actor> = self.actors.iter().copied().collect();
        let mut json = Json::default();
        json.open('{').key("title").string(&about.title);
        json.key("count").word(trace.count()).key("dropped").word(trace.dropped());
        json.key("fingerprint").string(&format!("{:016x}", trace.fingerprint()));
        json.key("members").open('[');
        for replica in &about.replicas {
            json.word(place(&actors, Some(Actor::Replica(*replica))));
        }
        json.close(']').key("actors").open('[');
        for actor in &actors {
            json.string(&actor.to_string());
        }
        json.close(']').key("failure");
        match &self.failure {
            None => json.word("null"),
            Some((at, headline, found)) => {
                json.open('{').key("at").word(at.0).key("headline").string(headline);
                json.key("found").string(found).close('}')
            }
        };
        self.write_arrows(&mut json, &actors);
        self.write_marks(&mut json, &actors);
        json.close('}');
        json.finish()
    }

    fn write_arrows(&self, json: &mut Json, actors: &[Actor]) {
        json.key("messages").open('[');
        for Arrow { packet, sent, held, ended, copy, detail } in &self.arrows {
            json.open('[').word(packet.serial).string(&format!("{:?}", packet.kind));
            json.word(place(actors, Some(packet.from))).word(place(actors, Some(packet.to)));
            json.word(packet.view).word(packet.op_number).word(sent.0);
            match ended {
                None => json.word("null").word("null"),
                Some((at, None)) => json.word(at.0).word("null"),
                Some((at, Some(why))) => json.word(at.0).string(&format!("{why:?}")),
            };
            json.word(held.map_or_else(|| "null".to_owned(), |held| held.0.to_string()));
            json.word(u8::from(*copy)).string(detail).close(']');
        }
        json.close(']');
    }

    fn write_marks(&self, json: &mut Json, actors: &[Actor]) {
        json.key("marks").open('[');
        for Mark { at, class, actors: [one, other], text } in &self.marks {
            json.open('[').word(at.0).string(class);
            json.word(place(actors, *one)).word(place(actors, *other)).string(text).close(']');
        }
        json.close(']').key("says").open('[');
        for (at, standing) in &self.says {
            json.open('[').word(at.0).word(place(actors, Some(standing.replica.into())));
            json.string(&format!("{:?}", standing.status));
            json.word(standing.view).word(standing.log_view).word(standing.op_number);
            json.word(standing.commit_number).word(standing.applied);
            json.word(u8::from(standing.serving)).close(']');
        }
        json.close(']');
    }
}

/// The lane of `actor`; -1 without one.
fn place(actors: &[Actor], actor: Option<Actor>) -> i64 {
    let found = actor.and_then(|actor| actors.iter().position(|other| *other == actor));
    found.and_then(|place| i64::try_from(place).ok()).unwrap_or(-1)
}

/// How the page calls an event that is no message, and whose lanes it stands on.
fn mark_of(event: &Event) -> (&'static str, [Option<Actor>; 2]) {
    match event {
        Event::Connected(one, other) => ("connected", [Some(*one), Some(*other)]),
        Event::Disconnected(one, other) => ("broken", [Some(*one), Some(*other)]),
        Event::Stored { replica, .. } => ("stored", [Some((*replica).into()), None]),
        Event::Applied { replica, .. } => ("applied", [Some((*replica).into()), None]),
        Event::Answered(..) => ("answered", [None, None]),
        Event::Process(actor, fate) => (class_of(fate), [Some(*actor), None]),
        Event::Cut(from, to) => ("cut", [Some(*from), Some(*to)]),
        Event::Mended(from, to) => ("mended", [Some(*from), Some(*to)]),
        Event::Clogged(from, to, ..) => ("clogged", [Some(*from), Some(*to)]),
        Event::Partitioned(_) => ("partition", [None, None]),
        Event::Healed => ("healed", [None, None]),
        Event::Disk(replica, _) => ("disk", [Some((*replica).into()), None]),
        Event::Violated(_) => ("violated", [None, None]),
        Event::Failed(_) => ("failed", [None, None]),
        Event::Sent(_)
        | Event::Delivered(_)
        | Event::Lost(..)
        | Event::Held(_)
        | Event::Says(_)
        | Event::Note(_) => ("note", [None, None]),
    }
}

const fn class_of(fate: &Fate) -> &'static str {
    match fate {
        Fate::Started => "started",
        Fate::Crashed | Fate::CrashedSilently => "crashed",
        Fate::Wiped => "wiped",
        Fate::Paused => "paused",
        Fate::Resumed => "resumed",
        Fate::StorageStalled => "stalled",
        Fate::StorageResumed => "unstalled",
        Fate::Stopped(_) | Fate::Refused(_) => "stopped",
    }
}

#[cfg(test)]
mod tests {
    use vr_core::model::{
        kind::Kind,
        types::{OpNumber, ReplicaId, View},
    };

    use super::*;

    fn packet(serial: u64) -> Packet {
        let (from, to) = (Actor::Replica(ReplicaId(0)), Actor::Replica(ReplicaId(1)));
        let (view, op_number) = (View(0), OpNumber(1));
        Packet { serial, from, to, kind: Kind::Prepare, view, op_number, content: 0 }
    }

    fn fates(events: &[Event]) -> Vec<(u64, bool, Option<Option<Loss>>, bool)> {
        let mut at = 0;
        let recorded: Vec<Recorded> = events
            .iter()
            .map(|event| {
                at += 1;
                Recorded { at: Instant(at), event: event.clone(), detail: String::new() }
            })
            .collect();
        let mut picture = Picture::default();
        recorded.iter().for_each(|recorded| picture.add(recorded));
        let arrows = picture.arrows.iter();
        arrows.map(|a| (a.sent.0, a.held.is_some(), a.ended.map(|e| e.1), a.copy)).collect()
    }

    #[test]
    fn an_arrow_ends_where_its_own_message_does() {
        let (one, other) = (packet(1), packet(2));
        let found = fates(&[
            Event::Sent(one),
            Event::Sent(other),
            Event::Lost(other, Loss::Cut),
            Event::Held(one),
            Event::Delivered(one),
            Event::Delivered(one),
        ]);
        let first = (1, true, Some(None), false);
        let lost = (2, false, Some(Some(Loss::Cut)), false);
        let doubled = (1, false, Some(None), true);
        assert_eq!(found, [first, lost, doubled]);
    }

    #[test]
    fn a_hostile_note_stays_inside_its_string() {
        let mut trace = Trace::default();
        let hostile = "</script><script>alert(1)</script><!-- \u{2028} \"];";
        trace.record(Instant(1), Event::Note(hostile.to_owned()));
        let page = page_of(&trace);
        assert!(!page.contains("alert(1)</script>"));
        assert_eq!(page.matches("</script>").count(), 2);
        assert!(page.contains(r"\u003c/script\u003e\u003cscript\u003ealert(1)"));
    }
}
