//! RESP on a connection: finds the end of each command within limits, then lets the crate decode.
//!
//! The crate decodes one whole frame at a time and recurses into nested ones. So a scan of the
//! lengths alone comes first: it never reads a byte twice, lets nothing through but flat arrays of
//! bulk strings, and refuses what is too large before it has arrived.

use bytes::{Buf, Bytes, BytesMut};
use redis_protocol::{
    resp2::{decode, encode, types::BytesFrame},
    resp3,
};

use crate::kv::command::{Value, integer};

/// The most words of one command.
pub const WORDS_MAX: usize = 65_536;
/// The most bytes of one word.
pub const WORD_BYTES_MAX: usize = 4 << 20;
/// The most bytes of one command.
pub const COMMAND_BYTES_MAX: usize = 8 << 20;
/// The most bytes of a command that is typed as a plain line.
pub const INLINE_BYTES_MAX: usize = 64 << 10;
/// The most bytes of a line that holds a length.
const LENGTH_BYTES_MAX: usize = 32;

/// Why a client's bytes are not a command; the connection closes behind the error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// The number of words is no number or above [`WORDS_MAX`].
    #[error("ERR Protocol error: invalid multibulk length (at most {WORDS_MAX})")]
    WordCount,
    /// The length of a word is no number or above [`WORD_BYTES_MAX`].
    #[error("ERR Protocol error: invalid bulk length (at most {WORD_BYTES_MAX} bytes)")]
    WordLength,
    /// The words are more than [`COMMAND_BYTES_MAX`] together.
    #[error("ERR Protocol error: command too large (at most {COMMAND_BYTES_MAX} bytes)")]
    TooLarge,
    /// A word does not start with its length.
    #[error("ERR Protocol error: expected '$', got '{0}'")]
    NotAWord(char),
    /// A plain line is longer than [`INLINE_BYTES_MAX`].
    #[error("ERR Protocol error: too big inline request (at most {INLINE_BYTES_MAX} bytes)")]
    LineTooLong,
    /// A quote in a plain line is not closed.
    #[error("ERR Protocol error: unbalanced quotes in request")]
    Quotes,
    /// The decoder does not agree.
    #[error("ERR Protocol error: not a command")]
    Undecodable,
}

/// Takes commands from what a client sends, in pieces of any size.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Up to where the current command has been looked at.
    scanned: usize,
    /// How many of its words are still to come; `None` before its first line is complete.
    words_left: Option<usize>,
}

impl Decoder {
    /// Takes the next command out of `buffer`; `None` until it is complete. Empty commands, which
    /// Redis ignores, are skipped.
    ///
    /// # Errors
    /// [`ProtocolError`]: what follows cannot be understood any more; the connection must close.
    pub fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Vec<Bytes>>, ProtocolError> {
        loop {
            let words = match buffer.first() {
                None => return Ok(None),
                Some(b'*') => self.next_array(buffer)?,
                Some(_) => next_line(buffer)?,
            };
            match words {
                None => return Ok(None),
                Some(words) if words.is_empty() => {}
                Some(words) => return Ok(Some(words)),
            }
        }
    }

    fn next_array(&mut self, buffer: &mut BytesMut) -> Result<Option<Vec<Bytes>>, ProtocolError> {
        if !self.scan(buffer)? {
            return Ok(None);
        }
        let mut frame = buffer.split_to(self.scanned);
        *self = Self::default();
        if frame.starts_with(b"*-") || frame.starts_with(b"*0") {
            return Ok(Some(Vec::new()));
        }
        let decoded = decode::decode_bytes_mut(&mut frame);
        let Ok(Some((BytesFrame::Array(words), ..))) = decoded else {
            return Err(ProtocolError::Undecodable);
        };
        words.into_iter().map(word).collect::<Result<Vec<_>, _>>().map(Some)
    }

    /// Goes forward to the end of the command; false until it has arrived.
    fn scan(&mut self, buffer: &[u8]) -> Result<bool, ProtocolError> {
        let mut left = match self.words_left {
            Some(left) => left,
            None => match length_at(buffer, 0, ProtocolError::WordCount)? {
                None => return Ok(false),
                Some((count, behind)) => {
                    self.scanned = behind;
                    usize::try_from(count.max(0)).unwrap_or(usize::MAX)
                }
            },
        };
        if left > WORDS_MAX {
            return Err(ProtocolError::WordCount);
        }
        while left > 0 {
            self.words_left = Some(left);
            let Some(end) = end_of_word(buffer, self.scanned)? else { return Ok(false) };
            self.scanned = end;
            left -= 1;
        }
        self.words_left = Some(0);
        Ok(true)
    }
}

/// Where the word that starts at `at` ends; `None` until it has arrived.
fn end_of_word(buffer: &[u8], at: usize) -> Result<Option<usize>, ProtocolError> {
    match buffer.get(at) {
        None => return Ok(None),
        Some(b'$') => {}
        Some(other) => return Err(ProtocolError::NotAWord(printable(*other))),
    }
    let Some((length, behind)) = length_at(buffer, at, ProtocolError::WordLength)? else {
        return Ok(None);
    };
    let length = usize::try_from(length).map_err(|_| ProtocolError::WordLength)?;
    if length > WORD_BYTES_MAX {
        return Err(ProtocolError::WordLength);
    }
    let end = behind.saturating_add(length).saturating_add(2);
    if end > COMMAND_BYTES_MAX {
        return Err(ProtocolError::TooLarge);
    }
    Ok((end <= buffer.len()).then_some(end))
}

/// The number behind the mark at `at`, and where its line ends; `None` until it has arrived.
fn length_at(
    buffer: &[u8],
    at: usize,
    wrong: ProtocolError,
) -> Result<Option<(i64, usize)>, ProtocolError> {
    let behind_mark = buffer.get(at.saturating_add(1)..).unwrap_or_default();
    let window = behind_mark.get(..LENGTH_BYTES_MAX).unwrap_or(behind_mark);
    let Some(length) = window.windows(2).position(|two| two == b"\r\n") else {
        return if window.len() < LENGTH_BYTES_MAX { Ok(None) } else { Err(wrong) };
    };
    let number = window.get(..length).and_then(integer).ok_or(wrong)?;
    Ok(Some((number, at.saturating_add(length).saturating_add(3))))
}

fn printable(byte: u8) -> char {
    if byte.is_ascii_graphic() { char::from(byte) } else { ' ' }
}

fn word(frame: BytesFrame) -> Result<Bytes, ProtocolError> {
    match frame {
        BytesFrame::BulkString(bytes) => Ok(bytes),
        BytesFrame::SimpleString(_)
        | BytesFrame::Error(_)
        | BytesFrame::Integer(_)
        | BytesFrame::Array(_)
        | BytesFrame::Null => Err(ProtocolError::Undecodable),
    }
}

/// A command typed as a plain line, as telnet and the inline part of redis-benchmark send it.
fn next_line(buffer: &mut BytesMut) -> Result<Option<Vec<Bytes>>, ProtocolError> {
    let window = buffer.get(..INLINE_BYTES_MAX).unwrap_or(buffer);
    let Some(length) = window.iter().position(|byte| *byte == b'\n') else {
        let full = window.len() >= INLINE_BYTES_MAX;
        return if full { Err(ProtocolError::LineTooLong) } else { Ok(None) };
    };
    let line = buffer.split_to(length);
    buffer.advance(1);
    split_line(&line).map(Some)
}

/// Splits at white space; a word may stand in single or double quotes.
fn split_line(line: &[u8]) -> Result<Vec<Bytes>, ProtocolError> {
    let mut words = Vec::new();
    let mut rest = line.trim_ascii();
    while let Some((first, behind)) = rest.split_first() {
        let (word, behind) = match first {
            b'"' | b'\'' => quoted(behind, *first)?,
            _ => {
                let end = rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len());
                let (word, behind) = rest.split_at(end);
                (word.to_vec(), behind)
            }
        };
        words.push(Bytes::from(word));
        rest = behind.trim_ascii_start();
    }
    Ok(words)
}

/// The word up to the closing `quote`, which white space or the end must follow.
fn quoted(text: &[u8], quote: u8) -> Result<(Vec<u8>, &[u8]), ProtocolError> {
    let mut word = Vec::new();
    let mut bytes = text;
    loop {
        bytes = match bytes {
            [] => return Err(ProtocolError::Quotes),
            [first, behind @ ..] if *first == quote => {
                let closed = behind.first().is_none_or(u8::is_ascii_whitespace);
                return if closed { Ok((word, behind)) } else { Err(ProtocolError::Quotes) };
            }
            [b'\\', escaped, behind @ ..] if quote == b'"' || *escaped == b'\'' => {
                word.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    plain => *plain,
                });
                behind
            }
            [plain, behind @ ..] => {
                word.push(*plain);
                behind
            }
        };
    }
}

/// How answers are written. Commands look the same in both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// RESP2, until a client asks for more.
    #[default]
    Two,
    /// RESP3, asked for with `HELLO 3`: nothing has a sign of its own, and pairs are a map.
    Three,
}

/// What a client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A short text without line breaks.
    Line(&'static str),
    /// An error: its kind in capitals, then words.
    Error(String),
    /// What the state machine returned.
    Value(Value),
    /// Names, each once, and values.
    Pairs(Vec<(&'static str, Value)>),
}

impl Answer {
    /// Appends this to what the client is sent.
    pub fn encode(self, protocol: Protocol, out: &mut BytesMut) {
        let encoded = match protocol {
            Protocol::Two => encode::extend_encode(out, &self.frame(), false),
            Protocol::Three => {
                resp3::encode::complete::extend_encode(out, &self.frame_three(), false)
            }
        };
        if encoded.is_err() {
            // Only memory that is too small could be refused, and it has just been made.
            out.extend_from_slice(b"-ERR the reply cannot be written\r\n");
        }
    }

    fn frame(self) -> BytesFrame {
        match self {
            Self::Line(text) => BytesFrame::SimpleString(Bytes::from_static(text.as_bytes())),
            Self::Error(text) => BytesFrame::Error(one_line(&text).into()),
            Self::Value(value) => frame(value),
            Self::Pairs(pairs) => {
                let flat = pairs.into_iter().flat_map(|(name, value)| [text(name), value]);
                BytesFrame::Array(flat.map(frame).collect())
            }
        }
    }

    fn frame_three(self) -> resp3::types::BytesFrame {
        match self {
            Self::Line(text) => line_three(text),
            Self::Error(text) => error_three(&text),
            Self::Value(value) => frame_three(value),
            Self::Pairs(pairs) => {
                let pairs = pairs.into_iter();
                let data = pairs.map(|(name, value)| (frame_three(text(name)), frame_three(value)));
                resp3::types::BytesFrame::Map { data: data.collect(), attributes: None }
            }
        }
    }
}

fn one_line(text: &str) -> String {
    text.replace(['\r', '\n'], " ")
}

fn text(text: &'static str) -> Value {
    Value::Bulk(Bytes::from_static(text.as_bytes()))
}

fn frame(value: Value) -> BytesFrame {
    match value {
        Value::Ok => BytesFrame::SimpleString(Bytes::from_static(b"OK")),
        Value::Nil => BytesFrame::Null,
        Value::Integer(number) => BytesFrame::Integer(number),
        Value::Bulk(bytes) => BytesFrame::BulkString(bytes),
        Value::Array(values) => BytesFrame::Array(values.into_iter().map(frame).collect()),
        Value::Failed(failure) => BytesFrame::Error(one_line(&failure.to_string()).into()),
    }
}

fn line_three(text: &'static str) -> resp3::types::BytesFrame {
    let data = Bytes::from_static(text.as_bytes());
    resp3::types::BytesFrame::SimpleString { data, attributes: None }
}

fn error_three(text: &str) -> resp3::types::BytesFrame {
    resp3::types::BytesFrame::SimpleError { data: one_line(text).into(), attributes: None }
}

fn frame_three(value: Value) -> resp3::types::BytesFrame {
    use resp3::types::BytesFrame as Frame;
    let attributes = None;
    match value {
        Value::Ok => line_three("OK"),
        Value::Nil => Frame::Null,
        Value::Integer(data) => Frame::Number { data, attributes },
        Value::Bulk(data) => Frame::BlobString { data, attributes },
        Value::Array(values) => {
            Frame::Array { data: values.into_iter().map(frame_three).collect(), attributes }
        }
        Value::Failed(failure) => error_three(&failure.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(bytes: &[u8]) -> (Vec<Vec<Bytes>>, Option<ProtocolError>) {
        let (mut decoder, mut buffer) = (Decoder::default(), BytesMut::from(bytes));
        let mut commands = Vec::new();
        loop {
            match decoder.next(&mut buffer) {
                Ok(Some(words)) => commands.push(words),
                Ok(None) => return (commands, None),
                Err(error) => return (commands, Some(error)),
            }
        }
    }

    fn refusal(bytes: &[u8]) -> Option<String> {
        all(bytes).1.map(|error| error.to_string())
    }

    #[test]
    fn a_command_may_arrive_byte_by_byte() {
        let (mut decoder, mut buffer) = (Decoder::default(), BytesMut::new());
        let bytes = b"*2\r\n$3\r\nGET\r\n$4\r\nk\r\ny\r\n";
        let (last, before) = bytes.split_last().unwrap();
        for byte in before {
            buffer.extend_from_slice(&[*byte]);
            assert_eq!(decoder.next(&mut buffer), Ok(None));
        }
        buffer.extend_from_slice(&[*last]);
        assert_eq!(decoder.next(&mut buffer), Ok(Some(vec!["GET".into(), "k\r\ny".into()])));
    }

    #[test]
    fn a_line_is_split_like_a_shell_does() {
        let (commands, error) =
            all(b"PING\r\n\r\nSET  k \"a \\\"b\\n\" 'c d'\n*0\r\n*-1\r\nQUIT\n");
        assert_eq!(error, None);
        let set: Vec<Bytes> = vec!["SET".into(), "k".into(), "a \"b\n".into(), "c d".into()];
        assert_eq!(commands, vec![vec!["PING".into()], set, vec!["QUIT".into()]]);
    }

    #[test]
    fn what_is_not_a_command_is_refused() {
        let table: [(&[u8], &str); 8] = [
            (b"*x\r\n", "multibulk length"),
            (b"*65537\r\n", "multibulk length"),
            (b"*11111111111111111111111111111111111", "multibulk length"),
            (b"*1\r\n$x\r\n", "bulk length"),
            (b"*1\r\n$-1\r\n", "bulk length"),
            (b"*1\r\n$4194305\r\n", "bulk length"),
            (b"*1\r\n:1\r\n", "expected '$', got ':'"),
            (b"SET 'k\r\n", "unbalanced quotes"),
        ];
        for (bytes, expected) in table {
            let refused = refusal(bytes).unwrap_or_default();
            assert!(refused.contains(expected), "{refused} for {}", bytes.escape_ascii());
        }
    }

    #[test]
    fn nested_arrays_never_reach_the_decoder() {
        let deep = b"*1\r\n".repeat(200_000);
        assert!(refusal(&deep).unwrap().contains("expected '$', got '*'"));
    }

    #[test]
    fn limits_are_exact() {
        let line = |length: usize| [vec![b'x'; length], b"\n".to_vec()].concat();
        assert_eq!(refusal(&line(INLINE_BYTES_MAX - 1)), None);
        assert!(refusal(&line(INLINE_BYTES_MAX)).unwrap().contains("too big inline"));
        let word = [format!("${WORD_BYTES_MAX}\r\n").into_bytes(), vec![b'x'; WORD_BYTES_MAX]];
        let word = [word.concat(), b"\r\n".to_vec()].concat();
        let two = [b"*2\r\n".to_vec(), word.clone(), word.clone()].concat();
        assert!(refusal(&two).unwrap().contains("command too large"));
        assert_eq!(all(&[b"*1\r\n".to_vec(), word].concat()).0.len(), 1);
    }

    #[test]
    fn numbers_at_both_ends_are_written_whole() {
        for number in [i64::MIN, -1, 0, 9, 10, i64::MAX] {
            let mut out = BytesMut::new();
            for protocol in [Protocol::Two, Protocol::Three] {
                out.clear();
                Answer::Value(Value::Integer(number)).encode(protocol, &mut out);
                assert_eq!(out, format!(":{number}\r\n"));
            }
        }
    }

    #[test]
    fn an_error_never_breaks_the_line() {
        for protocol in [Protocol::Two, Protocol::Three] {
            let mut out = BytesMut::new();
            Answer::Error("ERR a\r\n+OK".into()).encode(protocol, &mut out);
            assert_eq!(&out[..], b"-ERR a  +OK\r\n");
        }
    }

    #[test]
    fn nothing_and_pairs_are_written_as_the_protocol_has_them() {
        let answer = || Answer::Pairs(vec![("a", Value::Array(vec![Value::Nil]))]);
        let (mut two, mut three) = (BytesMut::new(), BytesMut::new());
        answer().encode(Protocol::Two, &mut two);
        answer().encode(Protocol::Three, &mut three);
        assert_eq!(&two[..], b"*2\r\n$1\r\na\r\n*1\r\n$-1\r\n");
        assert_eq!(&three[..], b"%1\r\n$1\r\na\r\n*1\r\n_\r\n");
    }

    proptest! {
        #[test]
        fn any_bytes_give_commands_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            all(&bytes);
            all(&[b"*2\r\n$".as_slice(), &bytes].concat());
        }

        #[test]
        fn what_was_sent_arrives(words in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 1..6), cut in 0_usize..100) {
            let mut sent = BytesMut::new();
            let words: Vec<Bytes> = words.into_iter().map(Bytes::from).collect();
            let array = words.iter().cloned().map(Value::Bulk).collect();
            Answer::Value(Value::Array(array)).encode(Protocol::Two, &mut sent);
            let tail = sent.split_off(cut.min(sent.len()));
            let mut decoder = Decoder::default();
            let early = decoder.next(&mut sent).unwrap();
            sent.extend_from_slice(&tail);
            let late = decoder.next(&mut sent).unwrap();
            prop_assert_eq!(early.or(late), Some(words));
        }
    }
}
