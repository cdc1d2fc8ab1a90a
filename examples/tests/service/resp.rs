//! What a client sees on its connection, served from a state in memory.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::BytesMut;
use redis_protocol::resp2::types::{BytesFrame, Resp2Frame};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use vr_core::{Context, QueryContext, StateMachine};
use vr_examples::kv::{
    client::{RedisClient, encode},
    command::{Command, Question, Value},
    resp::WORD_BYTES_MAX,
    server::serve,
    session::{Backend, OPERATION_BYTES_MAX, OPERATION_COMMANDS_MAX, Unanswered},
    state::{Kv, VALUE_BYTES_MAX},
};

/// A state without replication, which notes how it was asked and can be told to fail.
#[derive(Debug, Default)]
struct Memory {
    kv: Mutex<Kv>,
    clock: AtomicU64,
    /// How many commands each operation had.
    operations: Mutex<Vec<usize>>,
    /// How many questions each query had.
    queries: Mutex<Vec<usize>>,
    failures: Mutex<Vec<Unanswered>>,
}

#[async_trait]
impl Backend for Memory {
    async fn execute(&self, _: u64, commands: Vec<Command>) -> Result<Vec<Value>, Unanswered> {
        if let Some(failure) = self.failures.lock().unwrap().pop() {
            return Err(failure);
        }
        self.operations.lock().unwrap().push(commands.len());
        let time = Duration::from_millis(self.clock.fetch_add(1, Ordering::Relaxed));
        let context = Context { time, ..Context::default() };
        Ok(self.kv.lock().unwrap().apply(&context, commands))
    }

    async fn query(&self, _: u64, questions: Vec<Question>) -> Result<Vec<Value>, Unanswered> {
        self.queries.lock().unwrap().push(questions.len());
        Ok(self.kv.lock().unwrap().query(&QueryContext::default(), questions))
    }

    fn info(&self) -> Vec<(&'static str, String)> {
        vec![("role", "primary".to_owned()), ("applied", "7".to_owned())]
    }

    async fn digest(&self) -> Result<String, Unanswered> {
        Ok("7 abc".to_owned())
    }

    async fn export(&self, name: &[u8], tail: bool) -> Result<String, Unanswered> {
        Ok(format!("{} {tail}", String::from_utf8_lossy(name)))
    }
}

/// The state behind a real socket.
struct Service {
    memory: Arc<Memory>,
    address: SocketAddr,
    stop: watch::Sender<bool>,
    server: JoinHandle<()>,
}

impl Service {
    async fn start() -> Self {
        let memory = Arc::new(Memory::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let server = tokio::spawn(serve(listener, memory.clone(), stopped));
        Self { memory, address, stop, server }
    }

    async fn client(&self) -> RedisClient {
        RedisClient::connect(self.address).await.unwrap()
    }

    /// Sends the lines in one go, and returns as many answers.
    async fn pipeline(&self, lines: &[&str]) -> Vec<String> {
        let mut out = BytesMut::new();
        for line in lines {
            encode(line.split(' '), &mut out);
        }
        let mut client = self.client().await;
        client.send(&out).await.unwrap();
        let mut answers = Vec::new();
        for _ in lines {
            match client.receive().await {
                Ok(answer) => answers.push(show(&answer)),
                Err(error) => answers.push(error.kind().to_string()),
            }
        }
        answers
    }
}

fn show(frame: &BytesFrame) -> String {
    match frame {
        BytesFrame::SimpleString(_) | BytesFrame::BulkString(_) => {
            String::from_utf8_lossy(frame.as_bytes().unwrap()).into_owned()
        }
        BytesFrame::Error(text) => format!("-{text}"),
        BytesFrame::Integer(number) => format!(":{number}"),
        BytesFrame::Array(frames) => frames.iter().map(show).collect::<Vec<_>>().join(","),
        BytesFrame::Null => "nil".to_owned(),
    }
}

#[tokio::test]
async fn neighbouring_writes_become_one_operation_in_order() {
    let service = Service::start().await;
    let answers = service
        .pipeline(&["SET a 1", "INCR a", "PING", "APPEND a 0", "GET a", "MGET a b", "INCR a"])
        .await;
    assert_eq!(answers, ["OK", ":2", "PONG", ":2", "20", "20,nil", ":21"]);
    assert_eq!(*service.memory.operations.lock().unwrap(), [3, 1]);
    assert_eq!(*service.memory.queries.lock().unwrap(), [2]);
}

#[tokio::test]
async fn an_error_in_a_pipeline_concerns_its_own_command_only() {
    let service = Service::start().await;
    let answers = service.pipeline(&["SET a x", "INCR a", "NOPE", "GET", "GET a"]).await;
    let expected = [
        "OK",
        "-ERR value is not an integer or out of range",
        "-ERR unknown command 'NOPE', with args beginning with: ",
        "-ERR wrong number of arguments for 'get' command",
        "x",
    ];
    assert_eq!(answers, expected);
}

#[tokio::test]
async fn an_operation_holds_a_bounded_number_of_commands() {
    let service = Service::start().await;
    let lines = vec!["INCR n"; OPERATION_COMMANDS_MAX + 5];
    let answers = service.pipeline(&lines).await;
    assert_eq!(answers.last().map(String::as_str), Some(":1029"));
    assert!(service.memory.operations.lock().unwrap().iter().all(|n| *n <= OPERATION_COMMANDS_MAX));
}

#[tokio::test]
async fn large_writes_are_spread_over_operations() {
    let service = Service::start().await;
    let value = "x".repeat(VALUE_BYTES_MAX - 100);
    let set = format!("SET k {value}");
    let answers = service.pipeline(&[&set, &set, "STRLEN k"]).await;
    assert_eq!(answers, ["OK", "OK", &format!(":{}", value.len())]);
    assert_eq!(*service.memory.operations.lock().unwrap(), [1, 1]);
}

#[tokio::test]
async fn a_command_over_the_limit_is_refused_and_the_connection_goes_on() {
    let service = Service::start().await;
    let huge = format!("SET k {}", "x".repeat(OPERATION_BYTES_MAX));
    let answers = service.pipeline(&[&huge, "EXISTS k"]).await;
    assert!(answers[0].contains("exceeds the limit of 1572864"), "{}", answers[0]);
    assert_eq!(answers[1], ":0");
    let mget = format!("MGET {}", "x".repeat(OPERATION_BYTES_MAX));
    assert!(service.pipeline(&[&mget]).await[0].contains("exceeds the limit"));
}

#[tokio::test]
async fn busy_is_said_and_later_commands_still_run() {
    let service = Service::start().await;
    service.memory.failures.lock().unwrap().push(Unanswered::Busy("no quorum".to_owned()));
    let answers = service.pipeline(&["SET a 1", "GET a", "SET a 2"]).await;
    assert_eq!(answers, ["-TRYAGAIN no quorum; not executed", "nil", "OK"]);
}

#[tokio::test]
async fn nothing_overtakes_an_unknown_outcome() {
    let service = Service::start().await;
    let failure = Unanswered::Uncertain("no reply in 10 s".to_owned());
    service.memory.failures.lock().unwrap().push(failure);
    let answers = service.pipeline(&["SET a 1", "INCR a", "GET a", "SET a 2"]).await;
    assert!(answers[0].starts_with("-UNCERTAIN no reply in 10 s"), "{}", answers[0]);
    assert!(answers[1].starts_with("-UNCERTAIN"), "{}", answers[1]);
    for answer in &answers[2..] {
        assert!(answer.starts_with("-ERR an earlier command"), "{answer}");
    }
    assert!(service.memory.operations.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_uncertain_connection_closes() {
    let service = Service::start().await;
    let failure = Unanswered::Uncertain("no reply".to_owned());
    service.memory.failures.lock().unwrap().push(failure);
    let mut client = service.client().await;
    client.call(["INCR", "n"]).await.unwrap();
    assert!(client.receive().await.is_err());
}

#[tokio::test]
async fn a_broken_protocol_is_named_and_closes_behind_what_was_whole() {
    let service = Service::start().await;
    let mut client = service.client().await;
    client.send(b"*1\r\n$4\r\nPING\r\n*1\r\n!oops\r\n").await.unwrap();
    assert_eq!(show(&client.receive().await.unwrap()), "PONG");
    let refused = show(&client.receive().await.unwrap());
    assert_eq!(refused, "-ERR Protocol error: expected '$', got '!'");
    assert!(client.receive().await.is_err());
}

#[tokio::test]
async fn the_refusal_arrives_though_the_client_goes_on_sending() {
    let service = Service::start().await;
    let mut client = service.client().await;
    let announced = format!("*1\r\n${}\r\n", WORD_BYTES_MAX + 1);
    client.send(announced.as_bytes()).await.unwrap();
    client.send(&vec![b'x'; 1 << 20]).await.unwrap();
    assert!(show(&client.receive().await.unwrap()).contains("invalid bulk length"));
}

#[tokio::test]
async fn a_client_that_stops_in_the_middle_disturbs_nobody() {
    let service = Service::start().await;
    let mut stopped = service.client().await;
    stopped.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nhal").await.unwrap();
    assert_eq!(service.pipeline(&["PING", "EXISTS k"]).await, ["PONG", ":0"]);
    drop(stopped);
    assert_eq!(service.pipeline(&["PING", "EXISTS k"]).await, ["PONG", ":0"]);
}

#[tokio::test]
async fn a_plain_line_is_a_command() {
    let service = Service::start().await;
    let mut client = service.client().await;
    client.send(b"PING\r\nSET k \"a b\"\r\nGET k\r\n").await.unwrap();
    for expected in ["PONG", "OK", "a b"] {
        assert_eq!(show(&client.receive().await.unwrap()), expected);
    }
}

#[tokio::test]
async fn what_clients_ask_before_they_start_is_answered() {
    let service = Service::start().await;
    let lines = [
        "HELLO 2",
        "CLIENT SETINFO LIB-NAME redis-py",
        "CLIENT SETNAME me",
        "COMMAND DOCS",
        "CONFIG GET save",
        "CONFIG GET append*",
        "CONFIG GET nothing",
        "SELECT 0",
        "ECHO hi",
        "PING hi",
        "DEBUG DIGEST",
        "QUIT",
    ];
    let answers = service.pipeline(&lines).await;
    assert!(answers[0].starts_with("server,vr-kv,version,"), "{}", answers[0]);
    let rest = ["OK", "OK", "", "save,", "appendonly,yes", "", "OK", "hi", "hi", "7 abc", "OK"];
    assert_eq!(answers[1..], rest);
}

#[tokio::test]
async fn a_client_may_ask_for_resp3() {
    let service = Service::start().await;
    let mut client = service.client().await;
    client
        .send(b"GET k\r\nHELLO 3\r\nGET k\r\nCONFIG GET save\r\nHELLO 2\r\nGET k\r\nQUIT\r\n")
        .await
        .unwrap();
    let said = client.rest().await.unwrap();
    let said = String::from_utf8_lossy(&said);
    assert!(said.starts_with("$-1\r\n%7\r\n"), "{said}");
    assert!(said.contains("_\r\n%1\r\n$4\r\nsave\r\n$0\r\n\r\n*14\r\n"), "{said}");
    assert!(said.ends_with("$-1\r\n+OK\r\n"), "{said}");
}

#[tokio::test]
async fn quit_closes_and_drops_what_follows() {
    let service = Service::start().await;
    let answers = service.pipeline(&["QUIT", "SET k v"]).await;
    assert_eq!(answers, ["OK", "unexpected end of file"]);
    assert!(service.memory.operations.lock().unwrap().is_empty());
}

#[tokio::test]
async fn info_is_told_as_lines() {
    let service = Service::start().await;
    let info = service.client().await.info().await.unwrap();
    assert!(info.is_primary());
    assert_eq!(info.number("applied"), 7);
}

#[tokio::test]
async fn stopping_ends_idle_connections() {
    let service = Service::start().await;
    let mut idle = service.client().await;
    idle.call(["PING"]).await.unwrap();
    service.stop.send(true).unwrap();
    assert!(idle.receive().await.is_err());
    service.server.await.unwrap();
}
