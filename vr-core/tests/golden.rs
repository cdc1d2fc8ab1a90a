//! The bytes of every message, an entry's header and the client table, pinned by files.
//!
//! `UPDATE_GOLDEN=1 cargo test -p vr-core --test golden` writes the files anew; do that only in a
//! commit that also raises the version and changes docs/WIRE.md.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

#[path = "messages/samples.rs"]
mod samples;

use std::{
    collections::BTreeSet,
    env,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use vr_core::{
    SnapshotReader, SnapshotWriter, Ticket,
    execution::client_table::{ClientTable, Turn},
    model::{
        certificate::CertificateHash,
        companion::Persisted,
        encoding::{
            entry::{decode_header, encode_header},
            frame::{FRAME_HEADER_BYTES, FrameHeader, FrameParts},
            message::{decode, encode},
        },
        kind::Kind,
        message::{Envelope, Message, Outcome},
        types::{Checksum, ClientId, Epoch, GroupId, OpNumber, RequestNumber},
    },
};

use crate::samples::{CLIENT, NONCE, entries, samples};

/// Samples that versions before 3 say in several messages.
const BATCHES: [&str; 2] = ["requests", "replies"];

/// Samples with entries, which versions before 4 lay out otherwise.
const WITH_ENTRIES: [&str; 3] = ["prepare", "prepare_of_requests", "entries"];

/// The sample that versions before 5 lay out otherwise.
const WITH_SUMS: &str = "requests";

#[test]
fn every_message_has_the_bytes_it_always_had() {
    for (name, envelope) in samples() {
        let frame = frame_of(&envelope);
        compare(&name, &frame);
        assert_eq!(decode(&golden(&name)).as_ref(), Ok(&envelope), "{name}");
    }
}

#[test]
fn an_entry_header_has_the_bytes_it_always_had() {
    let header = entries()[0].header;
    compare("entry_header", &encode_header(&header));
    assert_eq!(decode_header(&golden("entry_header")), Ok(header));
}

/// The table's bytes are hashed into the digest that replicas of several builds compare.
#[test]
fn a_client_table_has_the_bytes_it_always_had() {
    let mut table = ClientTable::new(64);
    table.register(CLIENT, NONCE, OpNumber(17), 10);
    table.register(ClientId(9), NONCE, OpNumber(19), 10);
    for (number, outcome) in
        [Outcome::Malformed, Outcome::Executed(Bytes::from_static(b"ok"))].into_iter().enumerate()
    {
        let number = u64::try_from(number).unwrap() + 1;
        let turn = table.turn(CLIENT, OpNumber(17), RequestNumber(number));
        let Turn::Next(mut slot) = turn else { panic!("request {number} is next") };
        slot.store(OpNumber(19 + number), outcome);
    }
    let mut bytes = Vec::new();
    table.snapshot(&mut SnapshotWriter::new(&mut bytes)).unwrap();
    compare("client_table", &bytes);
    let mut copy = ClientTable::new(64);
    copy.restore(&mut SnapshotReader::new(&mut golden("client_table").as_ref())).unwrap();
    assert_eq!(copy, table);
}

/// Companions lie in databases of users, and are read by whatever build runs next.
#[test]
fn a_companion_has_the_bytes_it_always_had() {
    let persisted = Persisted {
        group: GroupId(0x6_0000_0000_0000_0000_0000_0000_0001),
        certificate: CertificateHash(0x7_0000_0000_0000_0000_0000_0000_0002),
        op_number: OpNumber(23),
        checksum: Checksum(0x8_0000_0000_0000_0000_0000_0000_0003),
        time: Duration::from_nanos(1_700_000_000_000_000_017),
    };
    let table = golden("client_table");
    compare("companion", &persisted.to_companion(&table));
    let companion = golden("companion");
    assert_eq!(Persisted::of_companion(&companion), Some((persisted, table.as_ref())));
}

/// Tickets are stored by users, and resumed by whatever build they run then.
#[test]
fn a_ticket_has_the_bytes_it_always_had() {
    let group = GroupId(0x6_0000_0000_0000_0000_0000_0000_0001);
    let operations = [(false, "put a 1"), (true, "put b 2")];
    let operations = operations.map(|(many, operation)| (many, Bytes::from(operation)));
    let fields = (group, Epoch(1), CLIENT, OpNumber(17), RequestNumber(5), operations.to_vec());
    let record = postcard::to_allocvec(&fields).unwrap();
    let ticket: Ticket = postcard::from_bytes(&record).unwrap();
    compare("ticket", &ticket.to_bytes());
    assert_eq!(Ticket::from_bytes(&golden("ticket")).as_ref(), Ok(&ticket));
    let named = (ticket.group(), ticket.client(), ticket.session(), ticket.request_number());
    assert_eq!(named, (group, CLIENT, OpNumber(17), RequestNumber(5)));
    assert_eq!((ticket.operation(), ticket.is_many()), (b"put b 2".as_slice(), true));
}

#[test]
fn every_kind_has_a_sample_and_every_file_has_an_owner() {
    let samples = samples();
    let kinds: BTreeSet<Kind> = samples.iter().map(|(_, sample)| sample.message.kind()).collect();
    assert_eq!(kinds, BTreeSet::from(Kind::ALL));
    let mut owners: BTreeSet<String> = samples.into_iter().map(|(name, _)| name + ".hex").collect();
    owners.extend(["client_table.hex".into(), "companion.hex".into()]);
    owners.extend(["entry_header.hex".into(), "ticket.hex".into()]);
    assert_eq!(files_in(&directory()), owners);
}

/// The names of the files of a directory.
fn files_in(directory: &Path) -> BTreeSet<String> {
    let files = fs::read_dir(directory).unwrap().map(Result::unwrap);
    let files = files.filter(|file| file.file_type().unwrap().is_file());
    files.map(|file| file.file_name().into_string().unwrap()).collect()
}

/// What says more than a version before could: the message, the version that it is of, and what is
/// said in its place in those before.
const NEWS: [(&str, u16, &str); 4] = [
    ("prepare_ok_lease", 2, "prepare_ok_standing"),
    ("query_leased", 2, "query"),
    ("get_snapshot_compressed", 3, "get_snapshot"),
    ("snapshot_compressed", 3, "snapshot"),
];

/// What builds of the versions before wrote is read, and to such builds the same bytes are written.
/// What only a later version can say is left out.
#[test]
fn older_versions_are_spoken_as_they_always_were() {
    for version in [1, 2, 3, 4] {
        let old = files_in(&directory().join(format!("v{version}")));
        let mut spoken = BTreeSet::new();
        for (name, envelope) in samples() {
            if version < 3 && BATCHES.contains(&name.as_str()) {
                continue;
            }
            let mut parts = FrameParts::new().in_version(version);
            encode(&envelope, &mut parts).unwrap();
            let frame = parts.take_bytes();
            let news = NEWS.iter().find(|(news, since, _)| *news == name && version < *since);
            let plain = news.map_or(name.as_str(), |(_, _, plain)| plain);
            assert_eq!(frame, golden(&format!("v{version}/{plain}")), "{name} in {version}");
            let read = decode(&frame).unwrap();
            assert_eq!(read == envelope, news.is_none(), "{name} in version {version}");
            spoken.insert(format!("{plain}.hex"));
        }
        assert_eq!(spoken, old, "every file of version {version} is still spoken");
    }
}

/// To an end that knows no batches their parts are said one by one.
#[test]
fn a_batch_is_said_one_by_one_in_earlier_versions() {
    for (name, envelope) in samples() {
        let each: Vec<Message> = if let Message::Requests(batch) = envelope.message.clone() {
            batch.each().map(Message::Request).collect()
        } else if let Message::Replies(batch) = envelope.message.clone() {
            batch.each().map(Message::Reply).collect()
        } else {
            continue;
        };
        let mut parts = FrameParts::new().in_version(2);
        encode(&envelope, &mut parts).unwrap();
        let mut expected = FrameParts::new().in_version(2);
        for message in each {
            encode(&Envelope { message, ..envelope.clone() }, &mut expected).unwrap();
        }
        assert_eq!(parts.take_bytes(), expected.take_bytes(), "{name}");
    }
}

/// A frame of an older version with something of a newer one in it is none.
#[test]
fn what_is_new_in_a_frame_of_an_older_version_is_an_error() {
    for (name, envelope) in samples() {
        let frame = frame_of(&envelope);
        let header = FrameHeader::decode(&frame).unwrap();
        for version in [1, 2, 3, 4] {
            let header = FrameHeader { version, ..header };
            let forged =
                Bytes::from([header.encode().as_slice(), &frame[FRAME_HEADER_BYTES..]].concat());
            let is_new = NEWS.iter().any(|(news, since, _)| *news == name && version < *since)
                || (version < 3 && BATCHES.contains(&name.as_str()));
            // Every question for a part has one field more since version 3.
            let is_other = (version < 3 && name.starts_with("get_snapshot"))
                || (version < 4 && WITH_ENTRIES.contains(&name.as_str()))
                || name == WITH_SUMS;
            assert_eq!(decode(&forged).is_err(), is_new || is_other, "{name} in {version}");
        }
    }
}

#[test]
fn every_truncation_of_a_message_is_an_error() {
    for (name, envelope) in samples() {
        let frame = frame_of(&envelope);
        for length in 0..frame.len() {
            assert!(decode(&frame.slice(..length)).is_err(), "{name} cut to {length} bytes");
        }
        let longer = Bytes::from([frame.as_ref(), &[0]].concat());
        assert!(decode(&longer).is_err(), "{name} with a byte behind it");
    }
}

#[test]
fn every_flipped_bit_of_a_message_is_an_error() {
    for (name, envelope) in samples() {
        let frame = frame_of(&envelope);
        for bit in 0..frame.len() * 8 {
            let mut damaged = frame.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&Bytes::from(damaged)).is_err(), "{name} with bit {bit} flipped");
        }
    }
}

fn frame_of(envelope: &Envelope) -> Bytes {
    let mut parts = FrameParts::new();
    encode(envelope, &mut parts).unwrap();
    parts.take_bytes()
}

fn directory() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "golden"].iter().collect()
}

/// Compares `bytes` with the file `name`, or writes it.
fn compare(name: &str, bytes: &[u8]) {
    let mut text = String::new();
    for line in bytes.chunks(16) {
        let words: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(text, "{}", words.join(" ")).unwrap();
    }
    let file = directory().join(name).with_extension("hex");
    if env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1") {
        fs::write(&file, &text).unwrap();
    }
    let pinned = fs::read_to_string(&file)
        .unwrap_or_else(|error| panic!("{} cannot be read: {error}", file.display()));
    assert_eq!(text, pinned, "the bytes of {name} have changed");
}

/// The bytes in the file `name`.
fn golden(name: &str) -> Bytes {
    let text = fs::read_to_string(directory().join(name).with_extension("hex")).unwrap();
    text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}
