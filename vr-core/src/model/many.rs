//! Several operations, or several replies, as the bytes of one.

use bytes::{BufMut, Bytes, BytesMut};

/// Bytes in front of each part: its length.
const LENGTH_BYTES: usize = 4;

/// How a reply among several begins.
const EXECUTED: u8 = 0;
const MALFORMED: u8 = 1;

/// The bytes of these parts, each behind its length; `None` if one is longer than 4 GiB.
#[must_use]
pub fn join(parts: &[Bytes]) -> Option<Bytes> {
    let length = parts.iter().map(|part| part.len().saturating_add(LENGTH_BYTES)).sum();
    let mut joined = BytesMut::with_capacity(length);
    for part in parts {
        joined.put_u32_le(u32::try_from(part.len()).ok()?);
        joined.put_slice(part);
    }
    Some(joined.freeze())
}

/// The parts, which share the memory of `joined`; `None` if there are none, or the bytes are not
/// what [`join`] makes.
#[must_use]
pub fn split(joined: &Bytes) -> Option<Vec<Bytes>> {
    let mut rest = joined.clone();
    let mut parts = Vec::new();
    while !rest.is_empty() {
        let length = u32::from_le_bytes(*rest.first_chunk()?);
        drop(rest.split_to(LENGTH_BYTES));
        let length = usize::try_from(length).ok().filter(|length| *length <= rest.len())?;
        parts.push(rest.split_to(length));
    }
    (!parts.is_empty()).then_some(parts)
}

/// The replies to several operations in order, `None` for one that could not be read.
#[must_use]
pub fn join_replies(replies: &[Option<Bytes>]) -> Option<Bytes> {
    let marked: Vec<Bytes> = replies
        .iter()
        .map(|reply| match reply {
            Some(reply) => [[EXECUTED].as_slice(), reply].concat().into(),
            None => Bytes::from_static(&[MALFORMED]),
        })
        .collect();
    join(&marked)
}

/// What [`join_replies`] joined; `None` if the bytes are something else.
#[must_use]
pub fn split_replies(joined: &Bytes) -> Option<Vec<Option<Bytes>>> {
    split(joined)?
        .into_iter()
        .map(|part| match (part.first(), part.len()) {
            (Some(&EXECUTED), _) => Some(Some(part.slice(1..))),
            (Some(&MALFORMED), 1) => Some(None),
            (Some(_) | None, _) => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_not_parts_behind_their_lengths_is_refused() {
        let joined = join(&["a", "", "bcd"].map(Bytes::from)).unwrap();
        assert_eq!(joined, b"\x01\0\0\0a\0\0\0\0\x03\0\0\0bcd".as_slice());
        for length in 1..joined.len() {
            let whole = [5, 9].contains(&length);
            assert_eq!(split(&joined.slice(..length)).is_some(), whole, "cut to {length}");
        }
        assert_eq!(split(&Bytes::new()), None, "nothing is not several");
        assert_eq!(split(&Bytes::from_static(&[0xff; 8])), None);
        assert_eq!(split_replies(&join(&[Bytes::from_static(&[2])]).unwrap()), None);
    }

    proptest! {
        #[test]
        fn replies_survive_being_joined(
            replies in prop::collection::vec(prop::option::of(prop::collection::vec(any::<u8>(), 0..9)), 1..9),
        ) {
            let replies: Vec<_> = replies.into_iter().map(|reply| reply.map(Bytes::from)).collect();
            prop_assert_eq!(split_replies(&join_replies(&replies).unwrap()), Some(replies));
        }

        #[test]
        fn any_bytes_are_parts_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let bytes = Bytes::from(bytes);
            if let Some(parts) = split(&bytes) {
                prop_assert_eq!(join(&parts), Some(bytes));
            }
        }
    }
}
