//! One client's connection: what it sent in one go becomes as few operations as order allows.

use core::{fmt::Debug, mem};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

use crate::kv::{
    command::{Command, Question, Value},
    glob,
    parse::{self, COMMAND_COUNT, Local, Parsed, Refused},
    resp::{Answer, Protocol},
    state::{STATE_BYTES_MAX, VALUE_BYTES_MAX},
};

/// The most bytes of one operation or query; below `Config::request_bytes_max`.
pub const OPERATION_BYTES_MAX: usize = (1 << 20) + (1 << 19);
/// The most commands or questions of one operation or query, so that none takes long to execute.
pub const OPERATION_COMMANDS_MAX: usize = 1024;

/// What stands behind the connections: a replica, or a state in a test.
#[async_trait]
pub trait Backend: Debug + Send + Sync + 'static {
    /// Executes the commands in order, exactly once; the first so many, at least one. The others
    /// were not executed.
    ///
    /// # Errors
    /// [`Unanswered`] says what may have happened.
    async fn execute(
        &self,
        connection: u64,
        commands: Vec<Command>,
    ) -> Result<Vec<Value>, Unanswered>;

    /// Answers the questions from one linearizable state; the first so many, at least one.
    ///
    /// # Errors
    /// [`Unanswered`] says why not.
    async fn query(
        &self,
        connection: u64,
        questions: Vec<Question>,
    ) -> Result<Vec<Value>, Unanswered>;

    /// Names and values for `INFO`.
    fn info(&self) -> Vec<(&'static str, String)>;

    /// The op number and the checksum of the executed state, in one line.
    ///
    /// # Errors
    /// [`Unanswered`] says why not.
    async fn digest(&self) -> Result<String, Unanswered>;

    /// Writes the log to a file of this name; returns where it is, and through which op.
    ///
    /// # Errors
    /// [`Unanswered`] says why not.
    async fn export(&self, name: &[u8], tail: bool) -> Result<String, Unanswered>;
}

/// Why there is no answer, and whether the commands may have executed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// A limit is reached; nothing was executed.
    #[error("TRYAGAIN {0}; not executed")]
    Busy(String),
    /// Nothing was executed, and trying again as it is will not help.
    #[error("ERR {0}; not executed")]
    Refused(String),
    /// It was executed, but what it returned is lost.
    #[error("ERR {0}; executed")]
    Lost(String),
    /// Nobody knows; the commands may still be executed later.
    #[error("UNCERTAIN {0}; it is unknown whether this was or will be executed")]
    Uncertain(String),
}

/// Whether the connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// More commands may come.
    Continue,
    /// What was answered is all; the connection closes.
    Close,
}

/// Runs the commands of one connection.
#[derive(Debug)]
pub struct Session<'a> {
    backend: &'a dyn Backend,
    connection: u64,
    /// Each as it is to be written, because a client may change that on its way.
    answers: Vec<Option<(Protocol, Answer)>>,
    pending: Pending,
    uncertain: bool,
    protocol: Protocol,
}

/// Commands or questions that will leave together, each with its place among the answers.
#[derive(Debug)]
enum Pending {
    Writes(Batch<Command>),
    Reads(Batch<Question>),
}

#[derive(Debug)]
struct Batch<T> {
    places: Vec<usize>,
    items: Vec<T>,
    bytes: usize,
}

impl<T> Default for Batch<T> {
    fn default() -> Self {
        Self { places: Vec::new(), items: Vec::new(), bytes: 0 }
    }
}

impl<T> Batch<T> {
    fn has_room(&self, bytes: usize) -> bool {
        self.bytes + bytes <= OPERATION_BYTES_MAX && self.items.len() < OPERATION_COMMANDS_MAX
    }

    fn push(&mut self, place: usize, item: T, bytes: usize) {
        self.places.push(place);
        self.items.push(item);
        self.bytes += bytes;
    }
}

impl<'a> Session<'a> {
    /// A session for `connection`; its number spreads connections over the backend.
    pub fn new(backend: &'a dyn Backend, connection: u64) -> Self {
        Self {
            backend,
            connection,
            answers: Vec::new(),
            pending: Pending::Writes(Batch::default()),
            uncertain: false,
            protocol: Protocol::default(),
        }
    }

    /// How this client wants its answers written.
    #[must_use]
    pub const fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Runs what a client sent in one go, and appends the answers to `out`, in the same order.
    ///
    /// Neighbouring writes become one operation, neighbouring reads one query; each starts when
    /// the one before has its answer, so that a client sees its own order. Behind an unknown
    /// outcome nothing more is started, because it could overtake what is still on its way.
    pub async fn run(&mut self, commands: Vec<Vec<Bytes>>, out: &mut BytesMut) -> Next {
        let mut next = Next::Continue;
        for words in commands {
            let place = self.answers.len();
            self.answers.push(None);
            match parse::parse(&words) {
                Ok(Parsed::Write(command)) => self.write(place, command).await,
                Ok(Parsed::Read(question)) => self.read(place, question).await,
                Ok(Parsed::Local(local)) => {
                    if local == Local::Quit {
                        next = Next::Close;
                    }
                    let answer = self.local(local).await;
                    self.answer(place, answer);
                }
                Err(refused) => self.answer(place, Answer::Error(refused.to_string())),
            }
            if next == Next::Close {
                break;
            }
        }
        self.flush().await;
        for (protocol, answer) in self.answers.drain(..).flatten() {
            answer.encode(protocol, out);
        }
        if self.uncertain { Next::Close } else { next }
    }

    fn answer(&mut self, place: usize, answer: Answer) {
        if let Some(slot) = self.answers.get_mut(place) {
            *slot = Some((self.protocol, answer));
        }
    }

    async fn write(&mut self, place: usize, command: Command) {
        let bytes = command.bytes();
        if let Some(refused) = too_large(bytes) {
            return self.answer(place, refused);
        }
        if !matches!(&self.pending, Pending::Writes(batch) if batch.has_room(bytes)) {
            self.flush().await;
        }
        match &mut self.pending {
            Pending::Writes(batch) => batch.push(place, command, bytes),
            Pending::Reads(_) => {
                let mut batch = Batch::default();
                batch.push(place, command, bytes);
                self.pending = Pending::Writes(batch);
            }
        }
    }

    async fn read(&mut self, place: usize, question: Question) {
        let bytes = question.bytes();
        if let Some(refused) = too_large(bytes) {
            return self.answer(place, refused);
        }
        if !matches!(&self.pending, Pending::Reads(batch) if batch.has_room(bytes)) {
            self.flush().await;
        }
        match &mut self.pending {
            Pending::Reads(batch) => batch.push(place, question, bytes),
            Pending::Writes(_) => {
                let mut batch = Batch::default();
                batch.push(place, question, bytes);
                self.pending = Pending::Reads(batch);
            }
        }
    }

    /// Sends what is pending, as often as it takes.
    async fn flush(&mut self) {
        match mem::replace(&mut self.pending, Pending::Writes(Batch::default())) {
            Pending::Writes(Batch { mut places, mut items, .. }) => {
                while !items.is_empty() {
                    let asked = items.clone();
                    let result = if self.uncertain {
                        Err(overtaking())
                    } else {
                        self.backend.execute(self.connection, asked).await
                    };
                    self.settle(&mut places, &mut items, result);
                }
            }
            Pending::Reads(Batch { mut places, mut items, .. }) => {
                while !items.is_empty() {
                    let asked = items.clone();
                    let result = if self.uncertain {
                        Err(overtaking())
                    } else {
                        self.backend.query(self.connection, asked).await
                    };
                    self.settle(&mut places, &mut items, result);
                }
            }
        }
    }

    /// Gives each answered item its value, and takes it away; a failure answers all of them.
    fn settle<T>(
        &mut self,
        places: &mut Vec<usize>,
        items: &mut Vec<T>,
        result: Result<Vec<Value>, Unanswered>,
    ) {
        let failure = match result {
            Ok(values) if !values.is_empty() => {
                let answered = values.len().min(items.len());
                items.drain(..answered);
                for (place, value) in places.drain(..answered).zip(values) {
                    self.answer(place, Answer::Value(value));
                }
                return;
            }
            Ok(_) => Unanswered::Lost("the state machine answered nothing".to_owned()),
            Err(failure) => failure,
        };
        self.uncertain |= matches!(failure, Unanswered::Uncertain(_));
        items.clear();
        for place in places.drain(..) {
            self.answer(place, Answer::Error(failure.to_string()));
        }
    }

    async fn local(&mut self, local: Local) -> Answer {
        match local {
            Local::Ping(None) => Answer::Line("PONG"),
            Local::Ping(Some(message)) | Local::Echo(message) => bulk(message),
            Local::Hello(protocol) => {
                self.flush().await;
                self.protocol = protocol.unwrap_or(self.protocol);
                hello(self.connection, self.protocol)
            }
            Local::Quit | Local::Agreed => Answer::Value(Value::Ok),
            Local::ClientName => Answer::Value(Value::Nil),
            Local::ClientId => number(self.connection),
            Local::NoDescriptions => Answer::Value(Value::Array(Vec::new())),
            Local::CommandCount => number(u64::try_from(COMMAND_COUNT).unwrap_or(u64::MAX)),
            Local::ConfigGet(patterns) => config(&patterns),
            Local::Info => {
                self.flush().await;
                info(&self.backend.info())
            }
            Local::Export { name, tail } => {
                self.flush().await;
                match self.backend.export(&name, tail).await {
                    Ok(exported) => bulk(exported),
                    Err(failure) => Answer::Error(failure.to_string()),
                }
            }
            Local::Digest => {
                self.flush().await;
                match self.backend.digest().await {
                    Ok(digest) => bulk(digest),
                    Err(failure) => Answer::Error(failure.to_string()),
                }
            }
        }
    }
}

fn overtaking() -> Unanswered {
    Unanswered::Refused("an earlier command of this connection has an unknown outcome".to_owned())
}

fn too_large(bytes: usize) -> Option<Answer> {
    let refused = Refused::TooLarge { bytes, bytes_max: OPERATION_BYTES_MAX };
    (bytes > OPERATION_BYTES_MAX).then(|| Answer::Error(refused.to_string()))
}

fn bulk(bytes: impl Into<Bytes>) -> Answer {
    Answer::Value(Value::Bulk(bytes.into()))
}

fn number(number: u64) -> Answer {
    Answer::Value(Value::Integer(i64::try_from(number).unwrap_or(i64::MAX)))
}

fn hello(connection: u64, protocol: Protocol) -> Answer {
    let text = |text: &'static str| Value::Bulk(Bytes::from_static(text.as_bytes()));
    let version = match protocol {
        Protocol::Two => 2,
        Protocol::Three => 3,
    };
    Answer::Pairs(vec![
        ("server", text("vr-kv")),
        ("version", text(env!("CARGO_PKG_VERSION"))),
        ("proto", Value::Integer(version)),
        ("id", Value::Integer(i64::try_from(connection).unwrap_or(i64::MAX))),
        ("mode", text("standalone")),
        ("role", text("master")),
        ("modules", Value::Array(Vec::new())),
    ])
}

/// The settings that clients ask for, with the values that describe this service best.
fn config(patterns: &[Bytes]) -> Answer {
    let settings = [
        ("appendonly", "yes".to_owned()),
        ("databases", "1".to_owned()),
        ("maxmemory", STATE_BYTES_MAX.to_string()),
        ("proto-max-bulk-len", VALUE_BYTES_MAX.to_string()),
        ("save", String::new()),
    ];
    let asked_for = |name: &str| {
        patterns.iter().any(|p| glob::matches(&p.to_ascii_lowercase(), name.as_bytes()))
    };
    let found = settings.into_iter().filter(|(name, _)| asked_for(name));
    Answer::Pairs(found.map(|(name, value)| (name, Value::Bulk(value.into()))).collect())
}

fn info(facts: &[(&'static str, String)]) -> Answer {
    let mut text = format!(
        "# Server\r\nvr_kv_version:{}\r\nprocess_id:{}\r\n\r\n# Replication\r\n",
        env!("CARGO_PKG_VERSION"),
        std::process::id(),
    );
    for (name, value) in facts {
        text.push_str(&format!("{name}:{}\r\n", value.replace(['\r', '\n'], " ")));
    }
    bulk(text)
}
