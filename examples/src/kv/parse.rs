//! From a client's words to a command, a question, or something a replica answers by itself.

use bytes::Bytes;

use crate::kv::{
    command::{Command, Condition, Expiry, Question, integer},
    resp::Protocol,
};

/// What a client wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A change, to be replicated.
    Write(Command),
    /// A question about the state.
    Read(Question),
    /// Something about the connection or the replica.
    Local(Local),
}

/// What a replica answers by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Local {
    /// `PING [message]`.
    Ping(Option<Bytes>),
    /// `ECHO message`.
    Echo(Bytes),
    /// `HELLO [2 | 3]`: as before if no version is named.
    Hello(Option<Protocol>),
    /// `QUIT`.
    Quit,
    /// `SELECT 0`, `CLIENT SETNAME`, `CLIENT SETINFO`: agreed to without effect.
    Agreed,
    /// `CLIENT GETNAME`: never set.
    ClientName,
    /// `CLIENT ID`.
    ClientId,
    /// `COMMAND`, `COMMAND DOCS ..`: nothing is described.
    NoDescriptions,
    /// `COMMAND COUNT`.
    CommandCount,
    /// `CONFIG GET pattern ..`.
    ConfigGet(Vec<Bytes>),
    /// `INFO [section ..]`.
    Info,
    /// `DEBUG DIGEST`: op number and checksum of the executed state.
    Digest,
    /// `DEBUG EXPORT name [TAIL]`: the log, in a file.
    Export {
        /// Name of the file.
        name: Bytes,
        /// Whether what may be uncommitted is included.
        tail: bool,
    },
}

/// Why a client's words are not a command, in the words that Redis uses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// There is no such command.
    #[error("ERR unknown command '{name}', with args beginning with: {arguments}")]
    Unknown {
        /// The first word.
        name: String,
        /// The beginning of the others, each in quotes.
        arguments: String,
    },
    /// Too few or too many words.
    #[error("ERR wrong number of arguments for '{command}' command")]
    Arity {
        /// Which command.
        command: &'static str,
    },
    /// There is no such subcommand.
    #[error("ERR unknown subcommand '{name}'. Try {command} HELP.")]
    UnknownSubcommand {
        /// Of which command.
        command: &'static str,
        /// The second word.
        name: String,
    },
    /// Words that do not go together, or options that do not exist.
    #[error("ERR syntax error")]
    Syntax,
    /// An option that this command does not have.
    #[error("ERR Unsupported option {0}")]
    UnsupportedOption(String),
    /// Not a 64-bit number.
    #[error("ERR value is not an integer or out of range")]
    NotAnInteger,
    /// `DECRBY` of the smallest number.
    #[error("ERR decrement would overflow")]
    DecrementOverflow,
    /// A time that is not positive or too far away.
    #[error("ERR invalid expire time in '{command}' command")]
    InvalidExpire {
        /// In which command.
        command: &'static str,
    },
    /// Not what an earlier `SCAN` returned.
    #[error("ERR invalid cursor")]
    InvalidCursor,
    /// There is only database 0.
    #[error("ERR DB index is out of range")]
    DatabaseIndex,
    /// Only RESP2 and RESP3 are spoken.
    #[error("NOPROTO unsupported protocol version")]
    Protocol,
    /// The operation would not fit into the log.
    #[error(
        "ERR command of {bytes} bytes exceeds the limit of {bytes_max}; use smaller keys and \
         values. It was not executed"
    )]
    TooLarge {
        /// How large it is.
        bytes: usize,
        /// How large it may be.
        bytes_max: usize,
    },
}

/// How many bytes of a client's words an error repeats.
const REPEATED_BYTES_MAX: usize = 128;
/// The longest time to live: far from where adding it to the time would overflow.
const TTL_MILLIS_MAX: i64 = i64::MAX / 4;

/// Why one command's words were refused; who called knows which command it was.
enum Wrong {
    Arity,
    Refused(Refused),
}

impl From<Refused> for Wrong {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

type Words<'a> = &'a [Bytes];
type Row = (&'static str, fn(Words<'_>) -> Result<Parsed, Wrong>);

/// Every command, in alphabetical order.
const COMMANDS: [Row; 33] = [
    ("append", |words| pair(words).map(|(key, value)| write(Command::Append(key, value)))),
    ("cas", cas),
    ("client", client),
    ("command", command),
    ("config", config),
    ("dbsize", |words| none(words).map(|()| read(Question::DbSize))),
    ("debug", debug),
    ("decr", |words| one(words).map(|key| write(Command::IncrBy(key, -1)))),
    ("decrby", decrby),
    ("del", |words| some(words).map(|keys| write(Command::Del(keys)))),
    ("echo", |words| one(words).map(|message| local(Local::Echo(message)))),
    ("exists", |words| some(words).map(|keys| read(Question::Exists(keys)))),
    ("expire", |words| expire(words, "expire", 1000)),
    ("flushall", flushall),
    ("get", |words| one(words).map(|key| read(Question::Get(key)))),
    ("getdel", |words| one(words).map(|key| write(Command::GetDel(key)))),
    ("hello", hello),
    ("incr", |words| one(words).map(|key| write(Command::IncrBy(key, 1)))),
    ("incrby", incrby),
    ("info", |_| Ok(local(Local::Info))),
    ("keys", |words| one(words).map(|pattern| read(Question::Keys(pattern)))),
    ("mget", |words| some(words).map(|keys| read(Question::MGet(keys)))),
    ("mset", mset),
    ("persist", |words| one(words).map(|key| write(Command::Persist(key)))),
    ("pexpire", |words| expire(words, "pexpire", 1)),
    ("ping", ping),
    ("pttl", |words| one(words).map(|key| read(Question::PTtl(key)))),
    ("quit", |_| Ok(local(Local::Quit))),
    ("scan", scan),
    ("select", select),
    ("set", set),
    ("strlen", |words| one(words).map(|key| read(Question::StrLen(key)))),
    ("ttl", |words| one(words).map(|key| read(Question::Ttl(key)))),
];

/// How many commands there are.
pub const COMMAND_COUNT: usize = COMMANDS.len();

/// Understands one command; `words` starts with its name.
///
/// # Errors
/// [`Refused`] is what the client is told; nothing was executed.
pub fn parse(words: &[Bytes]) -> Result<Parsed, Refused> {
    let (name, arguments) =
        words.split_first().map_or((&[][..], words), |(name, rest)| (name.as_ref(), rest));
    let lower = name.to_ascii_lowercase();
    let row = COMMANDS.binary_search_by(|(known, _)| known.as_bytes().cmp(&lower));
    let Some((command, understand)) = row.ok().and_then(|position| COMMANDS.get(position)) else {
        return Err(unknown(name, arguments));
    };
    understand(arguments).map_err(|wrong| match wrong {
        Wrong::Arity => Refused::Arity { command },
        Wrong::Refused(refused) => refused,
    })
}

fn unknown(name: &[u8], arguments: &[Bytes]) -> Refused {
    let mut repeated = String::new();
    for argument in arguments {
        let left = REPEATED_BYTES_MAX.saturating_sub(repeated.len());
        if left == 0 {
            break;
        }
        repeated.push_str(&format!("'{}' ", lossy(argument, left)));
    }
    Refused::Unknown { name: lossy(name, REPEATED_BYTES_MAX), arguments: repeated }
}

/// The beginning of a client's bytes, fit for one line of text.
fn lossy(bytes: &[u8], length_max: usize) -> String {
    String::from_utf8_lossy(bytes.get(..length_max).unwrap_or(bytes)).replace(['\r', '\n'], " ")
}

const fn write(command: Command) -> Parsed {
    Parsed::Write(command)
}

const fn read(question: Question) -> Parsed {
    Parsed::Read(question)
}

const fn local(local: Local) -> Parsed {
    Parsed::Local(local)
}

const fn none(words: Words<'_>) -> Result<(), Wrong> {
    if words.is_empty() { Ok(()) } else { Err(Wrong::Arity) }
}

fn one(words: Words<'_>) -> Result<Bytes, Wrong> {
    let [word] = words else { return Err(Wrong::Arity) };
    Ok(word.clone())
}

fn pair(words: Words<'_>) -> Result<(Bytes, Bytes), Wrong> {
    let [first, second] = words else { return Err(Wrong::Arity) };
    Ok((first.clone(), second.clone()))
}

fn some(words: Words<'_>) -> Result<Vec<Bytes>, Wrong> {
    if words.is_empty() { Err(Wrong::Arity) } else { Ok(words.to_vec()) }
}

fn number(word: &[u8]) -> Result<i64, Refused> {
    integer(word).ok_or(Refused::NotAnInteger)
}

fn is(word: &[u8], name: &str) -> bool {
    word.eq_ignore_ascii_case(name.as_bytes())
}

fn cas(words: Words<'_>) -> Result<Parsed, Wrong> {
    let [key, old, new] = words else { return Err(Wrong::Arity) };
    Ok(write(Command::Cas { key: key.clone(), old: old.clone(), new: new.clone() }))
}

fn decrby(words: Words<'_>) -> Result<Parsed, Wrong> {
    let (key, by) = pair(words)?;
    let by = number(&by)?.checked_neg().ok_or(Refused::DecrementOverflow)?;
    Ok(write(Command::IncrBy(key, by)))
}

fn incrby(words: Words<'_>) -> Result<Parsed, Wrong> {
    let (key, by) = pair(words)?;
    Ok(write(Command::IncrBy(key, number(&by)?)))
}

fn expire(words: Words<'_>, command: &'static str, unit: i64) -> Result<Parsed, Wrong> {
    let [key, time, options @ ..] = words else { return Err(Wrong::Arity) };
    let millis = time_to_live(time, unit, command)?;
    if let Some(option) = options.first() {
        return Err(Refused::UnsupportedOption(lossy(option, REPEATED_BYTES_MAX)).into());
    }
    Ok(write(Command::Expire(key.clone(), millis)))
}

/// Milliseconds; possibly negative.
fn time_to_live(word: &[u8], unit: i64, command: &'static str) -> Result<i64, Refused> {
    number(word)?
        .checked_mul(unit)
        .filter(|millis| (-TTL_MILLIS_MAX..=TTL_MILLIS_MAX).contains(millis))
        .ok_or(Refused::InvalidExpire { command })
}

fn flushall(words: Words<'_>) -> Result<Parsed, Wrong> {
    match words {
        [] => Ok(write(Command::FlushAll)),
        [how] if is(how, "async") || is(how, "sync") => Ok(write(Command::FlushAll)),
        _ => Err(Refused::Syntax.into()),
    }
}

fn mset(words: Words<'_>) -> Result<Parsed, Wrong> {
    let (pairs, rest) = words.as_chunks::<2>();
    if pairs.is_empty() || !rest.is_empty() {
        return Err(Wrong::Arity);
    }
    let pairs = pairs.iter().map(|[key, value]| (key.clone(), value.clone())).collect();
    Ok(write(Command::MSet(pairs)))
}

fn set(words: Words<'_>) -> Result<Parsed, Wrong> {
    let [key, value, options @ ..] = words else { return Err(Wrong::Arity) };
    let mut condition = Condition::Always;
    let mut expiry = Expiry::Never;
    let mut return_old = false;
    let mut options = options.iter();
    while let Some(option) = options.next() {
        let (free, fresh) = (condition == Condition::Always, expiry == Expiry::Never);
        if is(option, "nx") && free {
            condition = Condition::IfAbsent;
        } else if is(option, "xx") && free {
            condition = Condition::IfPresent;
        } else if is(option, "get") {
            return_old = true;
        } else if is(option, "keepttl") && fresh {
            expiry = Expiry::Keep;
        } else if (is(option, "ex") || is(option, "px")) && fresh {
            let time = options.next().ok_or(Refused::Syntax)?;
            let millis = time_to_live(time, if is(option, "ex") { 1000 } else { 1 }, "set")?;
            let positive = u64::try_from(millis).ok().filter(|millis| *millis > 0);
            let invalid = Refused::InvalidExpire { command: "set" };
            expiry = Expiry::AfterMillis(positive.ok_or(invalid)?);
        } else {
            return Err(Refused::Syntax.into());
        }
    }
    let (key, value) = (key.clone(), value.clone());
    Ok(write(Command::Set { key, value, condition, expiry, return_old }))
}

fn scan(words: Words<'_>) -> Result<Parsed, Wrong> {
    let [cursor, options @ ..] = words else { return Err(Wrong::Arity) };
    let cursor = core::str::from_utf8(cursor).ok().and_then(|text| text.parse().ok());
    let cursor = cursor.ok_or(Refused::InvalidCursor)?;
    let (mut pattern, mut count) = (None, 10);
    let (options, rest) = options.as_chunks::<2>();
    for [option, value] in options {
        if is(option, "match") {
            pattern = Some(value.clone());
        } else if is(option, "count") {
            count = u64::try_from(number(value)?).unwrap_or(0);
            if count == 0 {
                return Err(Refused::Syntax.into());
            }
        } else {
            return Err(Refused::Syntax.into());
        }
    }
    if !rest.is_empty() {
        return Err(Refused::Syntax.into());
    }
    Ok(read(Question::Scan { cursor, pattern, count }))
}

fn ping(words: Words<'_>) -> Result<Parsed, Wrong> {
    match words {
        [] => Ok(local(Local::Ping(None))),
        [message] => Ok(local(Local::Ping(Some(message.clone())))),
        _ => Err(Wrong::Arity),
    }
}

fn select(words: Words<'_>) -> Result<Parsed, Wrong> {
    let database = number(&one(words)?)?;
    if database == 0 { Ok(local(Local::Agreed)) } else { Err(Refused::DatabaseIndex.into()) }
}

fn hello(words: Words<'_>) -> Result<Parsed, Wrong> {
    let [version, options @ ..] = words else { return Ok(local(Local::Hello(None))) };
    let protocol = match version.as_ref() {
        b"2" => Protocol::Two,
        b"3" => Protocol::Three,
        _ => return Err(Refused::Protocol.into()),
    };
    match options {
        [] => Ok(local(Local::Hello(Some(protocol)))),
        [option, _] if is(option, "setname") => Ok(local(Local::Hello(Some(protocol)))),
        _ => Err(Refused::Syntax.into()),
    }
}

fn client(words: Words<'_>) -> Result<Parsed, Wrong> {
    match words {
        [] => Err(Wrong::Arity),
        [what, _] if is(what, "setname") => Ok(local(Local::Agreed)),
        [what, _, _] if is(what, "setinfo") => Ok(local(Local::Agreed)),
        [what] if is(what, "getname") => Ok(local(Local::ClientName)),
        [what] if is(what, "id") => Ok(local(Local::ClientId)),
        [what, ..] => Err(subcommand("CLIENT", what)),
    }
}

fn command(words: Words<'_>) -> Result<Parsed, Wrong> {
    match words {
        [] => Ok(local(Local::NoDescriptions)),
        [what, ..] if is(what, "docs") || is(what, "info") => Ok(local(Local::NoDescriptions)),
        [what] if is(what, "count") => Ok(local(Local::CommandCount)),
        [what, ..] => Err(subcommand("COMMAND", what)),
    }
}

fn config(words: Words<'_>) -> Result<Parsed, Wrong> {
    match words {
        [] => Err(Wrong::Arity),
        [what, patterns @ ..] if is(what, "get") => Ok(local(Local::ConfigGet(some(patterns)?))),
        [what, ..] => Err(subcommand("CONFIG", what)),
    }
}

fn debug(words: Words<'_>) -> Result<Parsed, Wrong> {
    match words {
        [] => Err(Wrong::Arity),
        [what] if is(what, "digest") => Ok(local(Local::Digest)),
        [what, name] if is(what, "export") => {
            Ok(local(Local::Export { name: name.clone(), tail: false }))
        }
        [what, name, tail] if is(what, "export") && is(tail, "tail") => {
            Ok(local(Local::Export { name: name.clone(), tail: true }))
        }
        [what, ..] => Err(subcommand("DEBUG", what)),
    }
}

fn subcommand(command: &'static str, name: &[u8]) -> Wrong {
    let name = lossy(name, REPEATED_BYTES_MAX);
    Wrong::Refused(Refused::UnknownSubcommand { command, name })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(line: &str) -> Result<Parsed, Refused> {
        let words: Vec<Bytes> =
            line.split(' ').map(|word| Bytes::copy_from_slice(word.as_bytes())).collect();
        parse(&words)
    }

    #[test]
    fn the_table_is_sorted() {
        assert!(COMMANDS.is_sorted_by_key(|(name, _)| name));
    }

    #[test]
    fn refusals_read_as_in_redis() {
        let table = [
            ("NOPE a b", "ERR unknown command 'NOPE', with args beginning with: 'a' 'b' "),
            ("GET", "ERR wrong number of arguments for 'get' command"),
            ("get a b", "ERR wrong number of arguments for 'get' command"),
            ("MSET a", "ERR wrong number of arguments for 'mset' command"),
            ("MSET a 1 b", "ERR wrong number of arguments for 'mset' command"),
            ("SET k v NX XX", "ERR syntax error"),
            ("SET k v EX", "ERR syntax error"),
            ("SET k v EX 1 PX 1", "ERR syntax error"),
            ("SET k v EX 1 KEEPTTL", "ERR syntax error"),
            ("SET k v EX x", "ERR value is not an integer or out of range"),
            ("SET k v EX 0", "ERR invalid expire time in 'set' command"),
            ("SET k v PX 9223372036854775807", "ERR invalid expire time in 'set' command"),
            ("EXPIRE k 9223372036854775807", "ERR invalid expire time in 'expire' command"),
            ("EXPIRE k 1 NX", "ERR Unsupported option NX"),
            ("INCRBY k 1.5", "ERR value is not an integer or out of range"),
            ("DECRBY k -9223372036854775808", "ERR decrement would overflow"),
            ("SCAN x", "ERR invalid cursor"),
            ("SCAN 0 COUNT 0", "ERR syntax error"),
            ("SCAN 0 MATCH", "ERR syntax error"),
            ("SELECT 1", "ERR DB index is out of range"),
            ("HELLO 4", "NOPROTO unsupported protocol version"),
            ("CONFIG SET a b", "ERR unknown subcommand 'SET'. Try CONFIG HELP."),
            ("CONFIG GET", "ERR wrong number of arguments for 'config' command"),
        ];
        for (line, expected) in table {
            assert_eq!(said(line).unwrap_err().to_string(), expected, "{line}");
        }
    }

    #[test]
    fn set_takes_its_options_in_any_order() {
        let set = said("set k v get px 5 nx").unwrap();
        let expected = Command::Set {
            key: "k".into(),
            value: "v".into(),
            condition: Condition::IfAbsent,
            expiry: Expiry::AfterMillis(5),
            return_old: true,
        };
        assert_eq!(set, Parsed::Write(expected));
    }

    #[test]
    fn an_error_stays_on_one_short_line() {
        let long = Bytes::from(vec![b'\n'; 100_000]);
        let text = parse(&[long.clone(), long.clone(), long]).unwrap_err().to_string();
        assert!(!text.contains('\n'));
        assert!(text.len() < 400, "{} bytes", text.len());
    }
}
