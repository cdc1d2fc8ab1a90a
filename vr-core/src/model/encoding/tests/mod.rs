//! Round trips, damage and limits of frames and messages.

mod arbitrary;

use bytes::Bytes;
use proptest::{collection::vec, prelude::*};

use crate::model::{
    batch::BATCHED_BYTES,
    certificate::{CertificateHash, CrashVector},
    durable::CheckpointId,
    encoding::{
        CodecError, WIRE_VERSION, WIRE_VERSION_BATCHES, WIRE_VERSION_COMPRESSION, WIRE_VERSION_MIN,
        frame::{FRAME_HEADER_BYTES, FrameHeader, FrameParts},
        message::{decode, decode_body, encode},
        tests::arbitrary::{any_envelope, entries},
    },
    entries::Entries,
    entry::{Entry, EntryHeader, EntryKind},
    kind::{Kind, Lane},
    message::{Committed, Envelope, Message, Prepare, Register, Request, Sender},
    snapshot::{Snapshot, SnapshotContent},
    types::{
        Checksum, ClientId, Epoch, GroupId, HeartbeatNumber, Incarnation, Nonce, OpNumber,
        ReplicaId, RequestId, RequestNumber, View,
    },
};

fn frame_of(envelope: &Envelope) -> Bytes {
    let mut parts = FrameParts::new();
    encode(envelope, &mut parts).unwrap();
    parts.take_bytes()
}

fn envelope(message: Message) -> Envelope {
    Envelope {
        group: GroupId(1),
        certificate: CertificateHash(2),
        epoch: Epoch(3),
        sender: Sender::Replica(ReplicaId(4)),
        incarnation: Incarnation(5),
        view: View(6),
        crash_vector: CrashVector::default(),
        message,
    }
}

fn request_of(operation: Bytes) -> Envelope {
    envelope(Message::Request(Request {
        client: ClientId(1),
        session: OpNumber(2),
        request_number: RequestNumber(3),
        many: false,
        operation,
    }))
}

fn prepare_of(payloads: &[&'static [u8]]) -> Envelope {
    let entries = payloads
        .iter()
        .map(|payload| Entry::new(EntryHeader::default(), Bytes::from_static(payload)))
        .collect::<Vec<_>>();
    envelope(Message::Prepare(Prepare {
        entries: entries.into(),
        commit: Committed::default(),
        heartbeat: HeartbeatNumber(1),
    }))
}

#[test]
fn a_large_operation_is_shared_in_both_directions() {
    let operation = Bytes::from(vec![7; 100_000]);
    let mut parts = FrameParts::new();
    encode(&request_of(operation.clone()), &mut parts).unwrap();
    let mut segments = Vec::new();
    parts.take_segments(&mut segments);
    assert_eq!(segments.len(), 2);
    assert_eq!(segments[1].as_ptr(), operation.as_ptr());
    let frame = Bytes::from(segments.concat());
    let Message::Request(request) = decode(&frame).unwrap().message else { panic!("a request") };
    let position = request.operation.as_ptr().addr() - frame.as_ptr().addr();
    assert_eq!(position, frame.len() - operation.len());
}

#[test]
fn frames_encoded_together_stand_behind_each_other() {
    let envelopes = [request_of(Bytes::from_static(b"one")), prepare_of(&[b"two", b""])];
    let mut parts = FrameParts::new();
    for envelope in &envelopes {
        encode(envelope, &mut parts).unwrap();
    }
    let together = parts.len();
    let mut stream = parts.take_bytes();
    assert_eq!((stream.len(), parts.is_empty()), (together, true));
    for envelope in envelopes {
        let header = FrameHeader::decode(&stream).unwrap();
        let frame = stream.split_to(usize::try_from(header.frame_bytes()).unwrap());
        assert_eq!(decode(&frame), Ok(envelope));
    }
    assert!(stream.is_empty());
}

#[test]
fn small_frames_leave_as_one_segment() {
    let mut parts = FrameParts::new();
    for _ in 0..10 {
        encode(&request_of(Bytes::from_static(b"small")), &mut parts).unwrap();
    }
    let mut segments = Vec::new();
    parts.take_segments(&mut segments);
    assert_eq!(segments.len(), 1);
}

#[test]
fn a_frame_over_the_limit_is_refused_and_leaves_no_trace() {
    let small = request_of(Bytes::from_static(b"fits"));
    let exact = frame_of(&small).len();
    let mut parts = FrameParts::with_limit(u32::try_from(exact).unwrap());
    encode(&small, &mut parts).unwrap();
    for length in [5, 100_000] {
        let refused = encode(&request_of(Bytes::from(vec![0; length])), &mut parts);
        assert!(matches!(refused, Err(CodecError::Long { what: "frame", .. })));
        assert_eq!(parts.len(), exact);
    }
    encode(&small, &mut parts).unwrap();
    let frame = frame_of(&small);
    assert_eq!(parts.take_bytes(), [frame.clone(), frame].concat());
}

#[test]
fn an_entry_with_another_length_than_its_header_is_refused() {
    let mut entry = Entry::new(EntryHeader::default(), Bytes::from_static(b"abc"));
    entry.payload = Bytes::from_static(b"ab");
    let message = Message::Entries(Entries { request: RequestId(1), entries: vec![entry] });
    let mut parts = FrameParts::new();
    let refused = encode(&envelope(message), &mut parts);
    assert_eq!(refused, Err(CodecError::Short { what: "payload", have: 2, need: 3 }));
    assert!(parts.is_empty());
}

fn entries_of(entries: Vec<Entry>) -> Envelope {
    envelope(Message::Entries(Entries { request: RequestId(1), entries }))
}

#[test]
fn an_entry_that_does_not_go_on_from_the_one_before_travels_whole() {
    let first = EntryHeader {
        client: ClientId(1),
        view: View(2),
        op_number: OpNumber(3),
        time: 1_700_000_000_000_000_000,
        session: OpNumber(1),
        request_number: RequestNumber(4),
        group: 5,
        epoch: Epoch(6),
        kind: EntryKind::Request,
        ..EntryHeader::default()
    };
    let first = Entry::new(first, Bytes::from_static(b"put a 1"));
    let next = EntryHeader {
        parent: first.header.checksum,
        op_number: first.header.op_number.next(),
        time: first.header.time + 1,
        request_number: first.header.request_number.next(),
        ..first.header
    };
    type Change = fn(&mut EntryHeader);
    let changes: [(usize, Change); 15] = [
        (25, |_| {}),
        (25, |it| it.kind = EntryKind::Many),
        (25, |it| it.time += u64::from(u32::MAX) - 1),
        (57, |it| it.client = ClientId(9)),
        (57, |it| it.session = OpNumber(9)),
        (57, |it| it.request_number = RequestNumber(9)),
        (128, |it| it.parent = Checksum(9)),
        (128, |it| it.op_number = OpNumber(9)),
        (128, |it| it.view = View(9)),
        (128, |it| it.group = 9),
        (128, |it| it.epoch = Epoch(9)),
        (128, |it| it.time -= 2),
        (128, |it| it.time += u64::from(u32::MAX)),
        (128, |it| it.kind = EntryKind::Noop),
        (128, |it| it.kind = EntryKind::Register),
    ];
    for (at, (bytes, change)) in changes.into_iter().enumerate() {
        let mut header = next;
        change(&mut header);
        let second = Entry::new(header, Bytes::from_static(b"put b 2"));
        let one = frame_of(&entries_of(vec![first.clone()])).len();
        let two = entries_of(vec![first.clone(), second]);
        assert_eq!(frame_of(&two).len() - one, bytes + 7, "change {at}");
        assert_eq!(decode(&frame_of(&two)), Ok(two), "change {at}");
    }
}

#[test]
fn a_block_that_is_none_is_not_written_to_an_old_end() {
    let snapshot = |block: &'static [u8]| {
        let block = Bytes::from_static(block);
        let content = SnapshotContent::Compressed { index: 0, block };
        let (request, checkpoint) = (RequestId(1), CheckpointId::default());
        envelope(Message::Snapshot(Snapshot { request, checkpoint, content }))
    };
    for version in WIRE_VERSION_MIN..=WIRE_VERSION {
        let mut parts = FrameParts::new().in_version(version);
        let refused = encode(&snapshot(b"\xf0\xff\xff"), &mut parts);
        assert_eq!(refused.is_err(), version < WIRE_VERSION_COMPRESSION);
        assert_eq!(parts.is_empty(), refused.is_err(), "nothing is left of it");
        assert_eq!(encode(&snapshot(b"\x50state"), &mut parts), Ok(()));
    }
}

#[test]
fn the_buffer_is_used_again_once_its_segments_are_gone() {
    let mut parts = FrameParts::new();
    let small = request_of(Bytes::from_static(b"small"));
    let mut places = std::collections::BTreeSet::new();
    for _ in 0..1000 {
        encode(&small, &mut parts).unwrap();
        places.insert(parts.take_bytes().as_ptr().addr());
    }
    assert!(places.len() < 200, "{} places", places.len());
}

#[test]
fn a_zeroed_header_is_not_a_header() {
    let damaged = FrameHeader::decode(&[0; FRAME_HEADER_BYTES]);
    assert_eq!(damaged, Err(CodecError::Checksum { what: "frame header" }));
}

#[test]
fn a_header_that_guards_more_than_its_body_is_refused() {
    let header = FrameHeader::guarding(240, Lane::Control, b"hello").unwrap();
    let contradiction = FrameHeader { guarded_length: 6, ..header };
    assert_eq!(
        FrameHeader::decode(&contradiction.encode()),
        Err(CodecError::Invalid { what: "guarded length", value: 6 })
    );
    assert_eq!(FrameHeader::decode(&header.encode()), Ok(header));
    assert_eq!(header.check(b"hello"), Ok(()));
    assert_eq!(header.check(b"jello"), Err(CodecError::Checksum { what: "frame" }));
    assert!(matches!(header.check(b"hell"), Err(CodecError::Short { .. })));
    assert!(matches!(header.check(b"hello!"), Err(CodecError::Long { .. })));
}

#[test]
fn a_message_whose_body_is_not_guarded_is_refused() {
    let frame = frame_of(&request_of(Bytes::from_static(b"put")));
    let body = frame.slice(FRAME_HEADER_BYTES..);
    let header = FrameHeader::decode(&frame).unwrap();
    let careless = FrameHeader { guarded_length: 0, checksum: 0, ..header };
    let value = 0;
    assert_eq!(
        decode_body(&careless, &body),
        Err(CodecError::Invalid { what: "guarded length", value })
    );
    assert!(decode_body(&header, &body).is_ok());
}

#[test]
fn another_version_or_kind_or_lane_is_refused() {
    let frame = frame_of(&request_of(Bytes::from_static(b"put")));
    let body = frame.slice(FRAME_HEADER_BYTES..);
    let header = FrameHeader::decode(&frame).unwrap();
    for wrong in [
        FrameHeader { version: WIRE_VERSION_MIN - 1, ..header },
        FrameHeader { version: WIRE_VERSION + 1, ..header },
        FrameHeader { kind: 240, ..header },
        FrameHeader { lane: Lane::Bulk, ..header },
    ] {
        assert!(matches!(decode_body(&wrong, &body), Err(CodecError::Invalid { .. })));
    }
}

/// A frame of `kind` with a correct envelope in front of `body`.
fn forged(kind: Kind, lane: Lane, guarded: usize, body: &[u8]) -> (FrameHeader, Bytes) {
    let register = Register { client: ClientId(0), nonce: Nonce(0) };
    let frame = frame_of(&envelope(Message::Register(register)));
    let prefix = &frame[FRAME_HEADER_BYTES..frame.len() - 32];
    let whole = [prefix, body].concat();
    let header = FrameHeader::guarding(kind.number(), lane, &whole[..prefix.len() + guarded]);
    let body_length = u32::try_from(whole.len()).unwrap();
    (FrameHeader { body_length, ..header.unwrap() }, Bytes::from(whole))
}

#[test]
fn a_count_beyond_the_frame_is_refused_before_memory_is_reserved() {
    let (header, body) = forged(Kind::Entries, Lane::Bulk, 12, &[0xff; 12]);
    assert!(matches!(decode_body(&header, &body), Err(CodecError::Short { .. })));
    let claim = [0, 0xff, 0xff, 0xff, 0xff, 0x0f];
    let (header, body) = forged(Kind::Headers, Lane::Bulk, claim.len(), &claim);
    assert_eq!(decode_body(&header, &body), Err(CodecError::Body { what: "Headers" }));
}

#[test]
fn a_batch_has_a_limited_number_of_parts() {
    let empty = operation_head(0, 0, b"");
    for (version, empty) in [(4, &empty[..5]), (5, &empty)] {
        for (count, valid) in [(0, false), (1, true), (3120, true), (3121, false)] {
            let body = batch_of(count, &empty.repeat(usize::try_from(count).unwrap()));
            let (header, body) = forged(Kind::Requests, Lane::Data, body.len(), &body);
            let header = FrameHeader { version, ..header };
            assert_eq!(decode_body(&header, &body).is_ok(), valid, "{count} in {version}");
        }
    }
}

/// What is said about an operation of a batch, and the checksum of these bytes.
fn operation_head(many: u8, length: u32, bytes: &[u8]) -> Vec<u8> {
    [&[many], length.to_le_bytes().as_slice(), &Checksum::of(bytes).0.to_le_bytes()].concat()
}

/// A batch that says it has so many operations.
fn batch_of(count: u32, heads: &[u8]) -> Vec<u8> {
    [[1; 32].as_slice(), &count.to_le_bytes(), heads].concat()
}

/// Under a correct checksum of the frame.
#[test]
fn what_is_said_about_operations_fits_them() {
    let refused = |count, heads: &[Vec<u8>], operations: &[u8]| {
        let guarded = batch_of(count, &heads.concat());
        let body = [guarded.as_slice(), operations].concat();
        let (header, body) = forged(Kind::Requests, Lane::Data, guarded.len(), &body);
        decode_body(&header, &body).err()
    };
    let [one, two] = [b"one", b"two"].map(|bytes| operation_head(0, 3, bytes));
    let both = [one.clone(), two];
    assert_eq!(refused(2, &both, b"onetwo"), None);
    let (what, value) = ("byte after the end", b'!'.into());
    assert_eq!(refused(2, &both, b"onetwo!"), Some(CodecError::Invalid { what, value }));
    let short = |what, have, need| Some(CodecError::Short { what, have, need });
    assert_eq!(refused(2, &both, b"onetw"), short("message", 2, 3));
    let long = operation_head(0, u32::MAX, b"two");
    let need = usize::try_from(u32::MAX).unwrap();
    assert_eq!(refused(2, &[one.clone(), long], b"onetwo"), short("message", 3, need));
    let (what, value) = ("many", 2);
    let other = [one, operation_head(2, 3, b"two")];
    assert_eq!(refused(2, &other, b"onetwo"), Some(CodecError::Invalid { what, value }));
    for count in [0, 1, 3, u32::MAX] {
        let refused = refused(count, &both, b"onetwo");
        let is_length = |what| what == "guarded length";
        assert!(matches!(refused, Some(CodecError::Invalid { what, .. }) if is_length(what)));
    }
}

/// The frame's checksum does not cover operations of a batch: each has its own.
#[test]
fn an_operation_that_is_not_what_was_asked_for_is_refused() {
    let operations = ["one", "two"].map(|bytes| Bytes::from(bytes).into()).to_vec();
    let batch = Message::asking(ClientId(1), OpNumber(2), RequestNumber(3), operations);
    let frame = frame_of(&envelope(batch));
    let (intact, operations) = frame.split_at(frame.len() - 6);
    assert_eq!(operations, b"onetwo");
    for other in [b"twoone", b"onetwO", b"Onetwo"] {
        let damaged = Bytes::from([intact, other].concat());
        assert_eq!(decode(&damaged), Err(CodecError::Checksum { what: "operation" }));
    }
}

#[test]
fn bytes_behind_a_message_are_refused() {
    let (header, body) = forged(Kind::Register, Lane::Data, 33, &[9; 33]);
    assert!(matches!(decode_body(&header, &body), Err(CodecError::Invalid { .. })));
    let (header, body) = forged(Kind::FoundOk, Lane::Control, 2, &[1, 1]);
    assert_eq!(decode_body(&header, &body), Err(CodecError::Body { what: "FoundOk" }));
}

#[test]
fn a_number_that_names_nothing_is_refused() {
    let zeros = |count: usize| vec![0; count];
    for (kind, in_front, number, what) in [
        (Kind::Reply, zeros(32), 5, "outcome"),
        (Kind::Rejected, zeros(24), 3, "rejection"),
        (Kind::Rejected, zeros(25), 7, "limit"),
        (Kind::Query, zeros(24), 4, "read"),
        (Kind::Request, zeros(32), 2, "many"),
        (Kind::Answer, zeros(32), 2, "answer"),
        (Kind::Forward, zeros(0), 2, "forward"),
        (Kind::ForwardReply, zeros(0), 2, "forward reply"),
        (Kind::PrepareOk, zeros(80), 3, "standing"),
        (Kind::Commit, zeros(96), 4, "status"),
    ] {
        let body = [in_front, vec![number]].concat();
        let (header, whole) = forged(kind, Lane::Data, body.len(), &body);
        let value = u64::from(number);
        assert_eq!(decode_body(&header, &whole), Err(CodecError::Invalid { what, value }));
    }
}

/// A correct message of a replica with these bytes of its envelope replaced.
fn with_envelope(place: usize, bytes: &[u8]) -> Result<Envelope, CodecError> {
    let mut sample = envelope(Message::Register(Register { client: ClientId(0), nonce: Nonce(0) }));
    sample.crash_vector.learn(ReplicaId(1), Incarnation(1));
    sample.crash_vector.learn(ReplicaId(2), Incarnation(1));
    let mut body = frame_of(&sample)[FRAME_HEADER_BYTES..].to_vec();
    body[place..place + bytes.len()].copy_from_slice(bytes);
    let header = FrameHeader::guarding(Kind::Register.number(), Lane::Data, &body).unwrap();
    decode_body(&header, &Bytes::from(body))
}

#[test]
fn an_envelope_has_only_one_form() {
    assert!(with_envelope(76, &[0]).is_ok());
    let member = "member of a crash vector";
    for (place, bytes, what) in [
        (76, [2], member),
        (76, [3], member),
        (84, [0], member),
        (72, [2], "kind of sender"),
        (73, [1], "reserved byte"),
        (40, [1], "replica id above"),
    ] {
        let refused = with_envelope(place, &bytes);
        assert!(matches!(refused, Err(CodecError::Invalid { what: named, .. }) if named == what));
    }
}

#[test]
fn a_crash_vector_beyond_the_frame_is_refused() {
    let refused = with_envelope(74, &[0xff, 0xff]);
    assert!(matches!(refused, Err(CodecError::Short { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_envelope_survives_its_bytes(envelope in any_envelope()) {
        prop_assert_eq!(decode(&frame_of(&envelope)), Ok(envelope));
    }

    /// What senders count of an entry is never too little.
    #[test]
    fn no_entry_takes_more_of_a_message_than_on_disk(
        entries in entries(), version in WIRE_VERSION_MIN..=WIRE_VERSION,
    ) {
        let bytes = |envelope: &Envelope| {
            let mut parts = FrameParts::new().in_version(version);
            encode(envelope, &mut parts).unwrap();
            u64::try_from(parts.len()).unwrap()
        };
        let counted: u64 = entries.iter().map(Entry::bytes).sum();
        let none = bytes(&entries_of(Vec::new()));
        prop_assert!(bytes(&entries_of(entries)) - none <= counted);
    }

    /// The same of an operation of a batch.
    #[test]
    fn no_operation_takes_more_of_a_message_than_is_counted(
        lengths in vec(0..2_000_usize, 2..9), version in WIRE_VERSION_BATCHES..=WIRE_VERSION,
    ) {
        let ask = |lengths: &[usize]| {
            let operations = lengths.iter().map(|length| Bytes::from(vec![7; *length]).into());
            Message::asking(ClientId(1), OpNumber(2), RequestNumber(3), operations.collect())
        };
        let bytes = |message: &Message| {
            let mut parts = FrameParts::new().in_version(version);
            encode(&envelope(message.clone()), &mut parts).unwrap();
            u64::try_from(parts.len()).unwrap()
        };
        let fixed = bytes(&ask(&[0, 0])) - 2 * BATCHED_BYTES;
        let asked = ask(&lengths);
        let Message::Requests(batch) = &asked else { panic!("a batch") };
        prop_assert!(bytes(&asked) - fixed <= batch.bytes());
    }

    #[test]
    fn a_cut_or_damaged_frame_is_an_error(
        envelope in any_envelope(), place in any::<prop::sample::Index>(), mask in 1..=u8::MAX,
    ) {
        let frame = frame_of(&envelope);
        let place = place.index(frame.len());
        prop_assert!(decode(&frame.slice(..place)).is_err());
        let mut damaged = frame.to_vec();
        damaged[place] ^= mask;
        prop_assert!(decode(&Bytes::from(damaged)).is_err());
    }

    #[test]
    fn decoding_any_bytes_is_total(bytes in vec(any::<u8>(), 0..300)) {
        prop_assert!(decode(&Bytes::from(bytes)).is_err());
    }

    #[test]
    fn decoding_any_body_is_total(
        kind in prop::sample::select(&Kind::ALL[..]), body in vec(any::<u8>(), 0..400),
        guarded in any::<prop::sample::Index>(), version in 0..WIRE_VERSION + 2,
    ) {
        let guarded = guarded.index(body.len() + 1);
        for lane in [Lane::Control, Lane::Data, Lane::Bulk] {
            let (header, whole) = forged(kind, lane, guarded, &body);
            let _ = decode_body(&FrameHeader { version, ..header }, &whole);
            let (header, whole) = forged(kind, lane, body.len(), &body);
            if let Ok(envelope) = decode_body(&header, &whole) {
                prop_assert_eq!(decode(&frame_of(&envelope)), Ok(envelope));
            }
        }
    }
}
