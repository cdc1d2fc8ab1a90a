//! A small Redis client: what the demo and the tests talk to replicas with.

use std::{collections::BTreeMap, io, net::SocketAddr, time::Duration};

use bytes::{Bytes, BytesMut};
use redis_protocol::resp2::{
    decode,
    types::{BytesFrame, Resp2Frame},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::kv::{
    command::Value,
    resp::{Answer, Protocol},
};

/// How long a connection may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long an answer may take; longer than a replica's own deadline.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// How much is read at a time.
const READ_BYTES: usize = 16 << 10;

/// One connection to one replica.
#[derive(Debug)]
pub struct RedisClient {
    stream: TcpStream,
    buffer: BytesMut,
    patience: Duration,
}

impl RedisClient {
    /// Connects to a replica's `--resp` address.
    ///
    /// # Errors
    /// What the system said, or that it took too long.
    pub async fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await??;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: BytesMut::new(), patience: ANSWER_TIMEOUT })
    }

    /// The same connection, on which each answer may take `patience`.
    #[must_use]
    pub const fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Sends one command and waits for its answer.
    ///
    /// # Errors
    /// The connection broke: whether the command was executed is unknown.
    pub async fn call<W: AsRef<[u8]>>(
        &mut self,
        words: impl IntoIterator<Item = W>,
    ) -> io::Result<BytesFrame> {
        let mut out = BytesMut::new();
        encode(words, &mut out);
        self.send(&out).await?;
        self.receive().await
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Waits for the next answer.
    ///
    /// # Errors
    /// The connection broke, closed, or what came is no answer.
    pub async fn receive(&mut self) -> io::Result<BytesFrame> {
        loop {
            let decoded = decode::decode_bytes_mut(&mut self.buffer);
            if let Some((frame, ..)) = decoded.map_err(io::Error::other)? {
                return Ok(frame);
            }
            self.buffer.reserve(READ_BYTES);
            let read = timeout(self.patience, self.stream.read_buf(&mut self.buffer)).await??;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Waits until the replica closes the connection, and returns everything it sent before, as it
    /// came.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = self.buffer.split().to_vec();
        timeout(ANSWER_TIMEOUT, self.stream.read_to_end(&mut bytes)).await??;
        Ok(bytes)
    }

    /// What the replica says of itself.
    ///
    /// # Errors
    /// The connection broke, or the answer is no text.
    pub async fn info(&mut self) -> io::Result<Info> {
        let answer = self.call(["INFO"]).await?;
        let text = answer.as_str().ok_or(io::ErrorKind::InvalidData)?;
        let facts = text.lines().filter_map(|line| line.split_once(':'));
        Ok(Info(facts.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()))
    }
}

/// Appends one command to what is sent.
pub fn encode<W: AsRef<[u8]>>(words: impl IntoIterator<Item = W>, out: &mut BytesMut) {
    let words = words.into_iter().map(|word| Value::Bulk(Bytes::copy_from_slice(word.as_ref())));
    Answer::Value(Value::Array(words.collect())).encode(Protocol::Two, out);
}

/// What a replica said of itself, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Info(BTreeMap<String, String>);

impl Info {
    /// A text; empty when it was not told.
    #[must_use]
    pub fn text(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    /// A number; 0 when it was not told.
    #[must_use]
    pub fn number(&self, name: &str) -> u64 {
        self.text(name).parse().unwrap_or(0)
    }

    /// Whether the replica takes part in a view that has started.
    #[must_use]
    pub fn is_normal(&self) -> bool {
        self.text("status") == "normal"
    }

    /// Whether the replica is the primary of its view.
    #[must_use]
    pub fn is_primary(&self) -> bool {
        self.text("role") == "primary"
    }
}
