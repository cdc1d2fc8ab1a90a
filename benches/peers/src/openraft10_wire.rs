//! openraft 0.10 between processes: a stream of appends and its answers share a connection.

use std::{
    collections::VecDeque,
    future::Future,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
};

use anyhow::Context as _;
use futures_util::{Stream, StreamExt as _, stream::unfold};
use openraft10::{
    OptionalSend, Raft,
    alias::{SnapshotOf, VoteOf},
    base::{BoxFuture, BoxStream},
    errors::{RPCError, ReplicationClosed, StreamingError, Unreachable},
    network::{RPCOption, RaftNetworkFactory, RaftNetworkV2},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
        VoteRequest, VoteResponse,
    },
};
use tokio::{
    io::{AsyncWrite as _, AsyncWriteExt as _},
    net::{TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
};

use crate::{
    openraft_node::{fill, try_call},
    openraft10_store::{Count, Types},
    server::{frame, frames},
};

/// The first byte of a connection for one call after the other.
pub const CALLS: u8 = 0;
/// The first byte of a connection for a stream of appends.
pub const APPENDS: u8 = 1;
/// Bytes that wait for the socket before no more requests are taken.
const WAITING_BYTES_MAX: usize = 1 << 20;
/// Answers that leave in one write.
const ANSWERS_MAX: usize = 64;

type Request = AppendEntriesRequest<Types>;
pub type Failed = RPCError<Types>;
pub type Answer = Result<StreamAppendResult<Types>, Failed>;
pub type Answers<'a> = BoxStream<'a, Answer>;

pub fn unreachable(error: impl ToString) -> Failed {
    RPCError::Unreachable(Unreachable::from_string(error))
}

/// Calls from process to process.
#[derive(Clone)]
pub struct Dialler(pub Arc<Vec<SocketAddr>>);

pub struct Remote {
    address: SocketAddr,
    calls: Option<TcpStream>,
    appends: Option<TcpStream>,
}

impl RaftNetworkFactory<Types> for Dialler {
    type Network = Remote;

    async fn new_client(&mut self, id: u64, (): &()) -> Remote {
        Remote { address: self.0[id as usize], calls: None, appends: None }
    }
}

impl RaftNetworkV2<Types> for Remote {
    type SnapshotData = u64;

    async fn append_entries(
        &mut self,
        _: Request,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, Failed> {
        Err(unreachable("appends are streamed"))
    }

    fn stream_append<'s, S>(
        &'s mut self,
        requests: S,
        _: RPCOption,
    ) -> BoxFuture<'s, Result<Answers<'s>, Failed>>
    where
        S: Stream<Item = Request> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            let mut out = Vec::new();
            let stream = match self.appends.take() {
                Some(stream) => stream,
                None => {
                    frame(&mut out, |body| body.push(APPENDS));
                    dial(self.address).await.map_err(unreachable)?
                }
            };
            let answers: Answers<'s> = Box::pin(Session {
                kept: &mut self.appends,
                stream: Some(stream),
                requests: Some(requests),
                out,
                written: 0,
                read: Vec::new(),
                unanswered: 0,
            });
            Ok(answers)
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        _: RPCOption,
    ) -> Result<VoteResponse<Types>, Failed> {
        // Taken out meanwhile: an answer that nobody waited for must not be that of the next call.
        let called = try_call(self.address, self.calls.take(), CALLS, &rpc).await;
        let (stream, answer) = called.map_err(unreachable)?;
        self.calls = Some(stream);
        Ok(answer)
    }

    async fn full_snapshot(
        &mut self,
        _: VoteOf<Types>,
        _: SnapshotOf<Types, u64>,
        _: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        Err(no_snapshots())
    }
}

/// What is said to whoever sends a snapshot.
pub fn no_snapshots() -> StreamingError<Types> {
    StreamingError::Unreachable(Unreachable::from_string("no snapshots are made"))
}

async fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Writes requests as they come and reads answers as they come; neither waits for the other.
struct Session<'a, S> {
    /// Where the connection is left for the next session once all is answered.
    kept: &'a mut Option<TcpStream>,
    stream: Option<TcpStream>,
    /// `None` once there are no more.
    requests: Option<S>,
    out: Vec<u8>,
    written: usize,
    read: Vec<u8>,
    unanswered: usize,
}

impl<S: Stream<Item = Request> + Unpin> Session<'_, S> {
    /// Takes what is to be sent, as far as there is room; true if there may be more.
    fn take(&mut self, cx: &mut Context<'_>) -> anyhow::Result<bool> {
        while let Some(requests) = &mut self.requests {
            if self.out.len() - self.written >= WAITING_BYTES_MAX {
                return Ok(true);
            }
            match requests.poll_next_unpin(cx) {
                Poll::Pending => break,
                Poll::Ready(None) => self.requests = None,
                Poll::Ready(Some(request)) => {
                    let mut encoded = Ok(());
                    frame(&mut self.out, |body| encoded = encode(&request, body));
                    encoded?;
                    self.unanswered += 1;
                }
            }
        }
        Ok(false)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<anyhow::Result<Option<Answer>>> {
        loop {
            let has_more = self.take(cx)?;
            let Some(stream) = &mut self.stream else { return Poll::Ready(Ok(None)) };
            let mut is_blocked = false;
            while self.written < self.out.len() && !is_blocked {
                match Pin::new(&mut *stream).poll_write(cx, &self.out[self.written..]) {
                    Poll::Ready(length) => self.written += length?,
                    Poll::Pending => is_blocked = true,
                }
            }
            if !is_blocked {
                self.out.clear();
                self.written = 0;
                if has_more {
                    continue;
                }
            }
            if let Some(answer) = first(&mut self.read)? {
                self.unanswered -= 1;
                return Poll::Ready(Ok(Some(Ok(answer))));
            }
            if self.requests.is_none() && self.unanswered == 0 {
                *self.kept = self.stream.take();
                return Poll::Ready(Ok(None));
            }
            if stream.poll_read_ready(cx)?.is_pending() {
                return Poll::Pending;
            }
            self.read.reserve(1 << 12);
            match stream.try_read_buf(&mut self.read) {
                Ok(0) => return Poll::Ready(Err(anyhow::anyhow!("closed"))),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }
}

impl<S: Stream<Item = Request> + Unpin> Stream for Session<'_, S> {
    type Item = Answer;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Answer>> {
        let this = self.get_mut();
        this.poll(cx).map(|polled| {
            polled.unwrap_or_else(|error| {
                (this.stream, this.requests) = (None, None);
                Some(Err(unreachable(error)))
            })
        })
    }
}

fn encode(value: &impl serde::Serialize, body: &mut Vec<u8>) -> anyhow::Result<()> {
    *body = postcard::to_extend(value, std::mem::take(body))?;
    Ok(())
}

/// Removes the first answer that is there.
fn first(buffer: &mut Vec<u8>) -> anyhow::Result<Option<StreamAppendResult<Types>>> {
    let Some(head) = buffer.first_chunk() else { return Ok(None) };
    let until = 4 + u32::from_le_bytes(*head) as usize;
    let Some(body) = buffer.get(4..until) else { return Ok(None) };
    let answer = postcard::from_bytes(body)?;
    buffer.drain(..until);
    Ok(Some(answer))
}

/// The other end of a stream of appends: answers each in its turn, until one is refused.
pub async fn answer_appends(
    node: Raft<Types, Count>,
    reading: OwnedReadHalf,
    mut writing: OwnedWriteHalf,
    buffer: Vec<u8>,
) -> anyhow::Result<()> {
    let requests = unfold((reading, buffer, VecDeque::new()), next);
    let mut answers = pin!(node.stream_append(requests).ready_chunks(ANSWERS_MAX));
    while let Some(some) = answers.next().await {
        let mut out = Vec::new();
        for answer in some {
            let answer = answer?;
            let mut encoded = Ok(());
            frame(&mut out, |body| encoded = encode(&answer, body));
            encoded?;
        }
        writing.write_all(&out).await?;
    }
    Ok(())
}

type Incoming = (OwnedReadHalf, Vec<u8>, VecDeque<Request>);

/// The next request; none once the connection is closed.
async fn next((mut reading, mut buffer, mut requests): Incoming) -> Option<(Request, Incoming)> {
    loop {
        if let Some(request) = requests.pop_front() {
            return Some((request, (reading, buffer, requests)));
        }
        let parsed = frames(&mut buffer, |body| {
            requests.push_back(postcard::from_bytes(body).context("not a request")?);
            Ok(())
        });
        if parsed.is_err() || requests.is_empty() && fill(&mut reading, &mut buffer).await.is_err()
        {
            return None;
        }
    }
}
