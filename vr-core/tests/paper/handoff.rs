//! The planned hand-off: no paper has it; the rules are those of docs/PROTOCOL.md, "Hand-off".

use core::time::Duration;

use vr_core::{
    model::{
        kind::Kind,
        message::{Handoff, Message, Ping, StatusKind},
        types::{Checksum, OpNumber, Peer, ReplicaId, View},
    },
    replica::io::{Event, Fatal, HandoffError, Input},
};

use crate::{
    outputs::{Outputs, picked},
    subject::{Subject, acknowledge, committed, head, log, prepare, request, standing},
};

/// The primary of view 0 of three, with a session, whose backups say that they hear everybody.
fn primary() -> (Subject, OpNumber) {
    let mut primary = Subject::primary(3);
    let session = primary.open_session();
    let checksum = primary.head_of(session);
    let standing = standing(StatusKind::Normal, 0, session.0);
    for from in [1, 2] {
        primary.hear(from, 0, acknowledge(session, checksum));
        primary.hear(from, 0, Message::Ping(Ping { standing, sent_at: 0 }));
    }
    (primary, session)
}

fn failed(outputs: &Outputs) -> Vec<HandoffError> {
    let mut reasons = Vec::new();
    for event in outputs.events() {
        if let Event::HandoffFailed { reason } = event {
            reasons.push(reason.clone());
        }
    }
    reasons
}

fn handoff(view: u64, op_number: u64, checksum: Checksum) -> Message {
    let op_number = OpNumber(op_number);
    Message::Handoff(Handoff { view: View(view), op_number, checksum })
}

/// The primary leaves once the successor has acknowledged everything and every reply has left, not
/// before; what it says still belongs to the view that it leaves.
#[test]
fn a_primary_leaves_when_the_successor_holds_everything() {
    let (mut primary, session) = primary();
    primary.ask(request(session, 1));
    primary.persisted();
    let op = session.next();
    let checksum = primary.head_of(op);
    primary.hear(2, 0, acknowledge(op, checksum));
    let ordered = primary.hand_off(Some(1));
    assert!(ordered.receivers(Kind::Handoff).is_empty(), "r1 has not acknowledged");
    let acked = primary.hear(1, 0, acknowledge(op, checksum));
    assert!(acked.receivers(Kind::Handoff).is_empty(), "the client has no reply yet");
    let left = primary.executed(op, Vec::new());
    let said = picked!(left, Message::Handoff(m) => m.clone());
    assert_eq!(said, vec![Handoff { view: View(1), op_number: op, checksum }; 2]);
    assert!(left.envelope_views().iter().all(|view| *view == View(0)));
    assert!(left.events().contains(&&Event::HandedOff { to: ReplicaId(1), view: View(1) }));
    assert_eq!(primary.persisted().receivers(Kind::DoViewChange), [1, 2]);
}

/// The view of the successor is the lowest that it leads.
#[test]
fn views_of_others_are_left_out() {
    let (mut primary, _) = primary();
    let left = primary.hand_off(Some(2));
    assert_eq!(picked!(left, Message::Handoff(m) => m.view), [View(2), View(2)]);
    assert_eq!(primary.status().view, View(2));
}

/// Nothing gets a place while the successor catches up, and nothing is lost: the next primary is
/// told of it.
#[test]
fn requests_wait_and_are_passed_on_to_the_successor() {
    let (mut primary, session) = primary();
    primary.ask(request(session, 1));
    primary.persisted();
    primary.hand_off(Some(1));
    let waits = primary.ask(request(session, 2));
    assert!(waits.told().is_empty() && waits.receivers(Kind::Prepare).is_empty());
    let op = session.next();
    let checksum = primary.head_of(op);
    primary.hear(1, 0, acknowledge(op, checksum));
    primary.executed(op, Vec::new());
    assert_eq!(primary.status().view, View(1));
    primary.persisted();
    let start = vr_core::model::message::StartView {
        view: View(1),
        op_number: op,
        head: checksum,
        commit_number: op,
        checkpoint: vr_core::model::durable::CheckpointId::default(),
        suffix: Vec::new(),
        nonce: None,
    };
    primary.hear(1, 1, Message::StartView(start));
    let started = primary.persisted();
    assert_eq!(started.receivers(Kind::Forward), [1]);
}

/// A successor that does not catch up costs `handoff_timeout`, and then nothing.
#[test]
fn a_primary_goes_on_when_the_successor_is_too_slow() {
    let (mut primary, session) = primary();
    primary.ask(request(session, 1));
    primary.hand_off(Some(1));
    primary.ask(request(session, 2));
    let mut late = Outputs::default();
    for _ in 0..11 {
        primary.persisted();
        let op = session.next();
        let checksum = primary.head_of(op);
        primary.hear(2, 0, acknowledge(op, checksum));
        late.0.extend(primary.pass(Duration::from_millis(50)).0);
    }
    let after = Duration::from_millis(500);
    assert_eq!(failed(&late), [HandoffError::TimedOut { to: ReplicaId(1), after }]);
    assert_eq!(primary.status().op_number, session.plus(2), "the request that waited has a place");
    assert!(late.receivers(Kind::Handoff).is_empty());
}

/// A successor whose process ends is not waited for.
#[test]
fn a_lost_successor_ends_it_at_once() {
    let (mut primary, session) = primary();
    primary.ask(request(session, 1));
    primary.hand_off(Some(1));
    let lost = primary.handle(Input::Disconnected { peer: Peer::Replica(ReplicaId(1)) });
    assert_eq!(failed(&lost), [HandoffError::NotReady { to: ReplicaId(1) }]);
    assert_eq!(primary.status().handing_off, None);
}

/// What cannot be done is refused with the reason, and changes nothing.
#[test]
fn an_order_that_cannot_be_obeyed_is_refused() {
    let (mut primary, session) = primary();
    let refused = |primary: &mut Subject, to| primary.try_hand_off(to).unwrap_err();
    assert_eq!(refused(&mut primary, Some(0)), HandoffError::Itself);
    assert_eq!(refused(&mut primary, Some(9)), HandoffError::NotMember { to: ReplicaId(9) });
    primary.handle(Input::Disconnected { peer: Peer::Replica(ReplicaId(1)) });
    assert_eq!(refused(&mut primary, Some(1)), HandoffError::NotReady { to: ReplicaId(1) });
    primary.ask(request(session, 1));
    assert_eq!(primary.try_hand_off(None), Ok(()), "r2 is there");
    assert_eq!(primary.try_hand_off(Some(2)), Ok(()), "the same again");
    assert_eq!(refused(&mut primary, Some(1)), HandoffError::UnderWay { to: ReplicaId(2) });
    let primary = ReplicaId(0);
    let mut backup = Subject::backup(3);
    assert_eq!(refused(&mut backup, None), HandoffError::NotPrimary { primary });
    assert_eq!(refused(&mut Subject::primary(1), None), HandoffError::NoSuccessor);
}

/// A backup joins without suspecting anybody, and says so once its promise is durable.
#[test]
fn a_backup_joins_at_once() {
    let mut backup = Subject::backup(3);
    backup.hear(0, 0, prepare(&log(2), committed(&[], 0)));
    backup.persisted();
    let heard = backup.hear(0, 0, handoff(1, 2, head(&log(2))));
    assert_eq!((backup.status().view, heard.receivers(Kind::StartViewChange)), (View(1), vec![]));
    assert!(heard.receivers(Kind::DoViewChange).is_empty(), "the promise is not durable");
    assert_eq!(backup.persisted().receivers(Kind::DoViewChange), [0, 2]);
}

/// Only the primary of the view hands it off, and only upwards.
#[test]
fn nobody_else_hands_a_view_off() {
    let mut backup = Subject::backup(3);
    backup.hear(2, 0, handoff(2, 0, Checksum(1)));
    backup.hear(0, 0, handoff(0, 0, Checksum(1)));
    assert_eq!((backup.status().view, backup.status().ignored), (View(0), 2));
}

/// Within a view there is one log: a primary whose last op is another one has diverged.
#[test]
fn a_handoff_of_another_history_stops_the_backup() {
    let mut backup = Subject::backup(3);
    backup.hear(0, 0, prepare(&log(2), committed(&[], 0)));
    let heard = backup.hear(0, 0, handoff(1, 2, Checksum(99)));
    assert!(matches!(heard.fatal(), Some(Fatal::Diverged { .. })));
}
