//! What holds of a session whatever happens to it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::prelude::*;

use crate::{
    client::{
        call::CallId,
        io::{ClientInput, SessionOptions},
        session_tests::desk::{Desk, options},
    },
    model::{
        message::{Limit, Message, Outcome, Rejection},
        time::Instant,
        types::{ClientId, RequestNumber, View},
    },
};

/// One thing that can happen to a client.
#[derive(Clone, Debug)]
enum Happening {
    Execute,
    Abandon(u64),
    Connect(u64),
    Disconnect(u64),
    View(u64),
    Register(Outcome),
    Reply(u64, Outcome),
    Reject(u64, Rejection),
    /// Somebody resumes the oldest ticket that nobody has resumed.
    Resume,
    Wait,
}

fn happening() -> impl Strategy<Value = Happening> {
    let busy = prop_oneof![Just(Limit::Pipeline), Just(Limit::NoQuorum), Just(Limit::Forward)];
    let rejection = prop_oneof![
        8 => busy.prop_map(Rejection::Busy),
        1 => Just(Rejection::Evicted),
        1 => Just(Rejection::TooLarge { bytes: 9, bytes_max: 8 }),
    ];
    let outcome = prop_oneof![
        16 => Just(Outcome::Executed(Bytes::new())),
        1 => Just(Outcome::Malformed),
        1 => Just(Outcome::Evicted),
        1 => Just(Outcome::Registered),
    ];
    prop_oneof![
        4 => Just(Happening::Execute),
        1 => (0..40_u64).prop_map(Happening::Abandon),
        2 => (0..4_u64).prop_map(Happening::Connect),
        1 => (0..4_u64).prop_map(Happening::Disconnect),
        1 => (0..9_u64).prop_map(Happening::View),
        3 => Just(Happening::Register(Outcome::Registered)),
        8 => (0..20_u64, outcome).prop_map(|(number, outcome)| Happening::Reply(number, outcome)),
        2 => (0..20_u64, rejection).prop_map(|(number, reason)| Happening::Reject(number, reason)),
        1 => Just(Happening::Resume),
        3 => Just(Happening::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever happens: a number stands for one operation, no number is sent before the one a
    /// window below it was answered, a call is over once, and time never stands still.
    #[test]
    fn a_number_stands_for_one_operation_whatever_happens(
        happenings in prop::collection::vec(happening(), 0..120),
    ) {
        let mut desk = Desk::with(SessionOptions { window: 3, ..options() });
        let mut operations: BTreeMap<(ClientId, RequestNumber), Bytes> = BTreeMap::new();
        let mut answered: BTreeSet<(ClientId, u64)> = BTreeSet::new();
        let (mut calls, mut tickets) = (0, 0);
        for happening in happenings {
            let client = desk.session.client();
            match happening {
                Happening::Execute => {
                    calls += 1;
                    desk.execute(calls);
                }
                Happening::Abandon(call) => desk.handle(ClientInput::Abandon { call: CallId(call) }),
                Happening::Connect(replica) => desk.connect(replica),
                Happening::Disconnect(replica) => desk.disconnect(replica),
                Happening::View(view) => desk.view = View(view),
                Happening::Register(outcome) => desk.outcome(0, 5, outcome),
                Happening::Reply(number, outcome) => {
                    if operations.contains_key(&(client, RequestNumber(number))) {
                        answered.insert((client, number));
                        desk.outcome(number, 10, outcome);
                    }
                }
                Happening::Reject(number, reason) => desk.reject(RequestNumber(number), reason),
                Happening::Resume => {
                    let failed = desk.failed();
                    let mut left = failed.iter().filter_map(|(_, error)| error.ticket());
                    if let Some(ticket) = left.nth(tickets) {
                        calls += 1;
                        tickets += 1;
                        desk.resume(calls, ticket);
                    }
                }
                Happening::Wait if desk.session.deadline() < Instant::FAR_FUTURE => {
                    let before = desk.session.deadline();
                    desk.wait();
                    prop_assert!(desk.session.deadline() > before);
                }
                Happening::Wait => {}
            }
            for (_, message) in &desk.sent {
                let Message::Request(request) = message else { continue };
                let number = request.request_number;
                let known = operations.entry((request.client, number));
                let operation = known.or_insert_with(|| request.operation.clone());
                prop_assert_eq!(&*operation, &request.operation);
                let below = number.0.checked_sub(3).filter(|below| *below > 0);
                prop_assert!(below.is_none_or(|n| answered.contains(&(request.client, n))));
            }
            desk.sent.clear();
        }
        let over: BTreeSet<CallId> = desk.done.iter().map(|(call, _)| *call).collect();
        prop_assert_eq!(over.len(), desk.done.len());
    }
}
