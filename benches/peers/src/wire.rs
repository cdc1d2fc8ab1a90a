//! A connection that many clients share: what they ask between two turns leaves in one write.

use std::{
    future::poll_fn,
    io::ErrorKind,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use tokio::{net::TcpStream, time::sleep};
use vr_benches::load::generator::Target;

use crate::server::{CLIENT, WHO_LEADS, frame, frames};

/// How long a group may take to say who leads.
const PATIENCE: Duration = Duration::from_secs(30);

/// How clients reach the replicas of a group.
pub trait Connection: Target {
    /// A connection to this replica, whether it leads or not.
    fn to(address: &SocketAddr) -> impl Future<Output = anyhow::Result<Self>> + Send;

    /// Whether the replica says now that it leads; no if it does not answer.
    fn leads(&self) -> impl Future<Output = bool> + Send;

    /// A connection to whichever replica says that it leads.
    fn to_leader(members: &[SocketAddr]) -> impl Future<Output = anyhow::Result<Self>> + Send {
        async move {
            let begun = Instant::now();
            while begun.elapsed() < PATIENCE {
                for address in members {
                    if let Ok(connection) = Self::to(address).await
                        && connection.leads().await
                    {
                        return Ok(connection);
                    }
                }
                sleep(Duration::from_millis(20)).await;
            }
            bail!("no replica says that it leads")
        }
    }
}

/// A connection to a replica; clones share it.
#[derive(Clone)]
pub struct Wire(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    out: Vec<u8>,
    slots: Vec<Slot>,
    free: Vec<usize>,
    pump: Option<Waker>,
    is_closed: bool,
    leads: Option<bool>,
}

#[derive(Default)]
struct Slot {
    is_answered: bool,
    waker: Option<Waker>,
}

impl Wire {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }

    /// Queues a request, and returns the place of its answer.
    fn ask(&self, payload: &[u8]) -> usize {
        let mut state = self.state();
        let at = state.free.pop().unwrap_or_else(|| {
            state.slots.push(Slot::default());
            state.slots.len() - 1
        });
        frame(&mut state.out, |body| {
            body.extend_from_slice(&(at as u64).to_le_bytes());
            body.extend_from_slice(payload);
        });
        at
    }

    fn wake(&self) {
        let pump = self.state().pump.take();
        if let Some(pump) = pump {
            pump.wake();
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if Arc::strong_count(&self.0) == 1 {
            self.wake();
        }
    }
}

impl Connection for Wire {
    async fn to(address: &SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let wire = Self(Arc::default());
        frame(&mut wire.state().out, |body| body.push(CLIENT));
        let state = Arc::downgrade(&wire.0);
        tokio::spawn(async move {
            let mut pump = Pump { stream, writing: Vec::new(), written: 0, read: Vec::new() };
            poll_fn(|cx| match state.upgrade() {
                Some(state) => pump.poll(&state, cx),
                None => Poll::Ready(()),
            })
            .await;
        });
        Ok(wire)
    }

    // One question at a time.
    async fn leads(&self) -> bool {
        {
            let mut state = self.state();
            state.leads = None;
            frame(&mut state.out, |body| body.extend_from_slice(&WHO_LEADS.to_le_bytes()));
        }
        self.wake();
        let answered = async {
            loop {
                let known = {
                    let state = self.state();
                    if state.is_closed { Some(false) } else { state.leads }
                };
                if let Some(leads) = known {
                    return leads;
                }
                sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(2), answered).await.unwrap_or(false)
    }
}

impl Target for Wire {
    async fn write(&self, payload: Bytes) -> Result<(), String> {
        let at = self.ask(&payload);
        self.wake();
        let answered = poll_fn(|cx| {
            let mut state = self.state();
            let is_closed = state.is_closed;
            let slot = &mut state.slots[at];
            if std::mem::take(&mut slot.is_answered) {
                state.free.push(at);
                return Poll::Ready(Ok(()));
            }
            if is_closed {
                return Poll::Ready(Err("the connection is closed".to_owned()));
            }
            slot.waker = Some(cx.waker().clone());
            Poll::Pending
        });
        let patient = tokio::time::timeout(Duration::from_secs(10), answered);
        patient.await.unwrap_or_else(|_| Err("no answer in 10 s".to_owned()))
    }

    async fn read(&self) -> Result<(), String> {
        Err("peers are asked no queries".to_owned())
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The task that owns the socket.
struct Pump {
    stream: TcpStream,
    writing: Vec<u8>,
    written: usize,
    read: Vec<u8>,
}

impl Pump {
    fn poll(&mut self, shared: &Mutex<State>, cx: &mut Context<'_>) -> Poll<()> {
        let ended = match self.advance(shared, cx) {
            Ok(ended) => ended,
            Err(error) => {
                eprintln!("connection: {error:#}");
                true
            }
        };
        if !ended {
            return Poll::Pending;
        }
        let mut state = lock(shared);
        state.is_closed = true;
        let wakers: Vec<_> = state.slots.iter_mut().filter_map(|slot| slot.waker.take()).collect();
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        Poll::Ready(())
    }

    fn advance(&mut self, shared: &Mutex<State>, cx: &mut Context<'_>) -> anyhow::Result<bool> {
        while self.stream.poll_read_ready(cx)?.is_ready() {
            self.read.reserve(1 << 16);
            match self.stream.try_read_buf(&mut self.read) {
                Ok(0) => return Ok(true),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // So ends a process that is killed.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(true),
                Err(error) => return Err(error.into()),
            }
        }
        self.answer(shared)?;
        loop {
            {
                let mut state = lock(shared);
                if state.pump.as_ref().is_none_or(|known| !known.will_wake(cx.waker())) {
                    state.pump = Some(cx.waker().clone());
                }
                if self.written == self.writing.len() {
                    self.writing.clear();
                    self.written = 0;
                    std::mem::swap(&mut self.writing, &mut state.out);
                }
            }
            if self.writing.is_empty() {
                return Ok(false);
            }
            match self.stream.try_write(&self.writing[self.written..]) {
                Ok(length) => self.written += length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if self.stream.poll_write_ready(cx)?.is_pending() {
                        return Ok(false);
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Wakes every client whose answer is there.
    fn answer(&mut self, shared: &Mutex<State>) -> anyhow::Result<()> {
        if self.read.is_empty() {
            return Ok(());
        }
        let mut wakers = Vec::new();
        let mut state = lock(shared);
        frames(&mut self.read, |body| {
            let (tag, count) = body.split_first_chunk::<8>().context("a short answer")?;
            match u64::from_le_bytes(*tag) {
                WHO_LEADS => state.leads = Some(count.first() == Some(&1)),
                tag => {
                    let slot = state.slots.get_mut(tag as usize).context("an unknown answer")?;
                    slot.is_answered = true;
                    wakers.extend(slot.waker.take());
                }
            }
            Ok(())
        })?;
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        Ok(())
    }
}
