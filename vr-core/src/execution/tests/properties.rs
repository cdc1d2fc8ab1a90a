//! What holds for any log: neither batches nor duplicates nor who replies change what comes of it.

use super::{
    table::{bytes_of, restored},
    *,
};

/// What a test writes into its log; clients are 1 to 4, one more than the table holds.
#[derive(Clone, Copy, Debug)]
enum Line {
    Noop,
    Register(u8),
    Next(u8),
    Malformed(u8),
    Again(u8, u8),
    Early(u8),
    Stray(u8),
}

fn line() -> impl Strategy<Value = Line> {
    let client = 1_u8..=4;
    prop_oneof![
        1 => Just(Line::Noop),
        2 => client.clone().prop_map(Line::Register),
        6 => client.clone().prop_map(Line::Next),
        1 => client.clone().prop_map(Line::Malformed),
        3 => (client.clone(), 0_u8..6).prop_map(|(client, back)| Line::Again(client, back)),
        1 => client.clone().prop_map(Line::Early),
        1 => client.prop_map(Line::Stray),
    ]
}

/// The entries that `lines` stand for, and how many operations they execute.
fn log_of(lines: &[Line]) -> (Vec<Entry>, usize) {
    // Session, requests executed, and the op of the last use; 0 for none.
    let mut sessions = [(0, 0, 0); 5];
    let mut executed = 0;
    let mut entries = Vec::new();
    for (line, op) in lines.iter().zip(1..) {
        let name = |client: u8| ClientId(u128::from(client));
        let (client, offset) = match *line {
            Line::Noop => {
                entries.push(noop(op));
                continue;
            }
            Line::Register(client) => {
                entries.push(register(op, name(client), 5));
                if sessions[usize::from(client)].0 == 0 {
                    let open = sessions.iter_mut().filter(|session| session.0 != 0);
                    let open: Vec<_> = open.collect();
                    if open.len() == usize::try_from(CLIENTS).unwrap() {
                        let oldest = open.into_iter().min_by_key(|session| session.2);
                        *oldest.unwrap() = (0, 0, 0);
                    }
                    sessions[usize::from(client)] = (op, 0, op);
                }
                continue;
            }
            Line::Stray(client) => {
                entries.push(request(op, name(client), op, 1));
                continue;
            }
            Line::Next(client) | Line::Malformed(client) => (client, 1),
            Line::Early(client) => (client, 2),
            Line::Again(client, back) => (client, -i64::from(back)),
        };
        let (session, done, used) = &mut sessions[usize::from(client)];
        let number = u64::try_from(*done + offset).unwrap_or(0);
        let bad = matches!(line, Line::Malformed(_));
        let payload: &[u8] = if bad { b"?" } else { b"do" };
        entries.push(entry(op, EntryKind::Request, (name(client), *session, number), payload));
        if *session != 0 && offset == 1 {
            *done += 1;
            *used = op;
            executed += usize::from(!bad);
        }
    }
    (entries, executed)
}

/// The positions of the entries that change the state or the table.
fn effective(entries: &[Entry]) -> Vec<usize> {
    let mut executor = executor();
    let mut digest = executor.digest().unwrap();
    let mut changes = |entry: &Entry| {
        run(&mut executor, vec![entry.clone()]);
        core::mem::replace(&mut digest, executor.digest().unwrap()) != digest
    };
    let positions = entries.iter().enumerate();
    positions.filter(|(_, entry)| changes(entry)).map(|(position, _)| position).collect()
}

proptest! {
    #[test]
    fn batches_change_neither_state_nor_replies(
        lines in vec(line(), 0..60), cuts in vec(0_usize..10, 0..20),
    ) {
        let (entries, executed) = log_of(&lines);
        let mut whole = executor();
        let replies = run(&mut whole, entries.clone());
        let mut cut = executor();
        let mut told = Vec::new();
        let mut left = entries;
        for length in cuts {
            let rest = left.split_off(length.min(left.len()));
            told.extend(run(&mut cut, left));
            left = rest;
        }
        // The rest in steps, each of which is one entry.
        cut.push(Work::Entries { entries: left.into(), reply: true });
        while cut.step() {}
        told.extend(finish(&mut cut).executed.replies);
        prop_assert_eq!(replies, told);
        prop_assert_eq!(whole.applied(), cut.applied());
        prop_assert_eq!(whole.digest().unwrap(), cut.digest().unwrap());
        prop_assert_eq!(count(&mut whole), executed.to_string());
    }

    #[test]
    fn replies_wanted_or_not_the_state_is_the_same(
        lines in vec(line(), 0..60), change in any::<prop::sample::Index>(),
    ) {
        let (mut entries, _) = log_of(&lines);
        let mut primary = executor();
        run(&mut primary, entries.clone());
        let mut backup = executor();
        let later = entries.split_off(change.index(entries.len() + 1));
        backup.push(Work::Entries { entries: entries.into(), reply: false });
        backup.push(Work::Entries { entries: later.into(), reply: true });
        finish(&mut backup);
        prop_assert_eq!(primary.digest().unwrap(), backup.digest().unwrap());
        for (client, number) in (1..5).flat_map(|client| (0..9).map(move |n| (client, n))) {
            let client = ClientId(client);
            prop_assert_eq!(
                resend(&mut primary, client, number), resend(&mut backup, client, number)
            );
        }
    }

    #[test]
    fn a_duplicate_anywhere_changes_nothing(
        lines in vec(line(), 1..40), source in any::<prop::sample::Index>(),
        place in any::<prop::sample::Index>(),
    ) {
        let lines = [&[Line::Register(1), Line::Next(1)], lines.as_slice()].concat();
        let (mut entries, _) = log_of(&lines);
        // A registration that arrives again after its session was closed opens another one.
        let mut effective = effective(&entries[..entries.len() - 1]);
        effective.retain(|position| entries[*position].header.kind == EntryKind::Request);
        let source = effective[source.index(effective.len())];
        let place = source + 1 + place.index(entries.len() - source - 1);
        let op_number = entries[place].header.op_number;
        entries[place] = noop(op_number.0);
        let mut once = executor();
        run(&mut once, entries.clone());
        let header = EntryHeader { op_number, ..entries[source].header };
        entries[place] = Entry::new(header, entries[source].payload.clone());
        let mut twice = executor();
        run(&mut twice, entries);
        prop_assert_eq!(once.digest().unwrap(), twice.digest().unwrap());
    }

    #[test]
    fn a_table_made_of_any_log_survives_its_snapshot(lines in vec(line(), 0..60)) {
        let mut table = ClientTable::new(WINDOW);
        for entry in log_of(&lines).0 {
            let header = entry.header;
            if header.kind == EntryKind::Register {
                table.register(header.client, Nonce(5), header.op_number, header.session.0);
            }
            let turn = table.turn(header.client, header.session, header.request_number);
            if let Turn::Next(mut slot) = turn {
                slot.store(header.op_number, Outcome::Executed(entry.payload));
            }
        }
        let (copy, behind) = restored(&bytes_of(&table)).unwrap();
        prop_assert_eq!((copy, behind), (table, 0));
    }

    #[test]
    fn restoring_any_bytes_is_total(bytes in vec(any::<u8>(), 0..200)) {
        let _ = restored(&[&[1, 0], bytes.as_slice()].concat());
    }
}
