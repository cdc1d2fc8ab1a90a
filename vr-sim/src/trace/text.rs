//! A trace in words: one line for each event.

use core::fmt;

use crate::{
    actor::Actor,
    trace::{
        Trace,
        event::{Event, Fate, Packet, Standing},
        recording::Recorded,
    },
};

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { serial, from, to, kind, view, op_number, content: _ } = self;
        write!(f, "{from} > {to}  {kind:?} v{view} op {op_number} #{serial}")
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sent(packet) => write!(f, "sent      {packet}"),
            Self::Delivered(packet) => write!(f, "delivered {packet}"),
            Self::Lost(packet, why) => write!(f, "lost      {packet} ({why:?})"),
            Self::Held(packet) => write!(f, "held      {packet}"),
            Self::Connected(one, other) => write!(f, "connected {one} - {other}"),
            Self::Disconnected(one, other) => write!(f, "broken    {one} - {other}"),
            Self::Stored { replica, entries, op_number, view, log_view } => write!(
                f,
                "stored    r{replica} {entries} entries, op {op_number} view {view} log view {log_view}"
            ),
            Self::Applied { replica, op_number, tag } => {
                write!(f, "applied   r{replica} op {op_number} (call {tag})")
            }
            Self::Answered(call, how) => write!(f, "answered  call {call}: {how}"),
            Self::Process(actor, fate) => write_fate(f, *actor, fate),
            Self::Cut(from, to) => write!(f, "---       cut {from} > {to}"),
            Self::Mended(from, to) => write!(f, "---       healed {from} > {to}"),
            Self::Clogged(from, to, lane, until) => {
                write!(f, "---       clogged {from} > {to} {lane:?} until {until}")
            }
            Self::Partitioned(side) => {
                f.write_str("---       partition")?;
                side.iter().try_for_each(|actor| write!(f, " {actor}"))
            }
            Self::Healed => f.write_str("---       healed"),
            Self::Disk(replica, what) => write!(f, "---       disk of r{replica}: {what}"),
            Self::Says(standing) => write!(f, "says      {standing}"),
            Self::Violated(violation) => write!(f, "---       {violation}"),
            Self::Failed(why) => write!(f, "---       failed: {why}"),
            Self::Note(text) => write!(f, "---       {text}"),
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { replica, status, view, log_view, op_number, commit_number, applied, serving } =
            self;
        write!(
            f,
            "r{replica} {status:?} view {view} log view {log_view} op {op_number} \
             commit {commit_number} applied {applied}{}",
            if *serving { " serves" } else { "" }
        )
    }
}

fn write_fate(f: &mut fmt::Formatter<'_>, actor: Actor, fate: &Fate) -> fmt::Result {
    f.write_str("---       ")?;
    match fate {
        Fate::Started => write!(f, "{actor} starts"),
        Fate::Crashed => write!(f, "{actor} crashes"),
        Fate::CrashedSilently => write!(f, "{actor} crashes silently"),
        Fate::Wiped => write!(f, "{actor} wiped"),
        Fate::Paused => write!(f, "{actor} pauses"),
        Fate::Resumed => write!(f, "{actor} goes on"),
        Fate::StorageStalled => write!(f, "storage of {actor} stalls"),
        Fate::StorageResumed => write!(f, "storage of {actor} goes on"),
        Fate::Stopped(why) => write!(f, "{actor} stopped: {why}"),
        Fate::Refused(why) => write!(f, "{actor} did not start: {why}"),
    }
}

/// A recording as text: what it is, then a line for each event.
#[must_use]
pub fn text_of(trace: &Trace) -> String {
    let about = trace.about();
    let mut text = format!("{}\n", one_line(&about.title));
    let (count, fingerprint) = (trace.count(), trace.fingerprint());
    text.push_str(&format!("{count} events, fingerprint {fingerprint:016x}\n"));
    if trace.dropped() > 0 {
        let dropped = trace.dropped();
        text.push_str(&format!("{dropped} older events were dropped; how it stood then:\n"));
        for recorded in trace.standing() {
            push_line(&mut text, recorded);
        }
        text.push_str("the events that were kept:\n");
    }
    for recorded in trace.kept() {
        push_line(&mut text, recorded);
    }
    text
}

fn push_line(text: &mut String, recorded: &Recorded) {
    let Recorded { at, event, detail } = recorded;
    text.push_str(&format!("{:>14} {}", at.to_string(), one_line(&event.to_string())));
    if !detail.is_empty() {
        text.push_str(&format!("  ({detail})"));
    }
    text.push('\n');
}

/// The same without line breaks, so that an event is a line whatever a note says.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}
