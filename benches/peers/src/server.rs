//! One engine as a process: a single thread, one poll for all sockets, one write for each socket
//! and turn.

use std::{
    collections::BTreeMap,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream as StdStream},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use mio::{
    Events, Interest, Poll, Token,
    net::{TcpListener, TcpStream},
};

use crate::{
    Peer,
    busy::Busy,
    engine::{Engine, REPLICAS},
};

/// How often an engine hears of time passing.
pub const TICK: Duration = Duration::from_millis(5);
/// The first bytes of a connection that a client opened; a replica's are its number.
pub const CLIENT: u8 = 255;
/// The tag of a client's question whether this replica leads.
pub const WHO_LEADS: u64 = u64::MAX;
/// The longest frame.
const FRAME_BYTES_MAX: usize = 64 << 20;
const LISTENER: Token = Token(usize::MAX);

struct Connection {
    stream: TcpStream,
    from: Option<u8>,
    read: Vec<u8>,
    written: usize,
    out: Vec<u8>,
}

impl Connection {
    fn new(stream: TcpStream, from: Option<u8>) -> Self {
        Self { stream, from, read: Vec::new(), written: 0, out: Vec::new() }
    }

    /// Reads what is there; false when the other end is gone.
    fn fill(&mut self, spare: &mut [u8]) -> bool {
        loop {
            match self.stream.read(spare) {
                Ok(0) => return false,
                Ok(length) => self.read.extend_from_slice(&spare[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
    }

    /// Writes what waits, as far as the socket takes it; false when the other end is gone.
    fn flush(&mut self) -> bool {
        while self.written < self.out.len() {
            match self.stream.write(&self.out[self.written..]) {
                Ok(length) => self.written += length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        self.out.clear();
        self.written = 0;
        true
    }
}

/// Appends a frame, whose body `fill` writes.
pub fn frame(into: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    let at = into.len();
    into.extend_from_slice(&[0; 4]);
    fill(into);
    let length = (into.len() - at - 4) as u32;
    into[at..at + 4].copy_from_slice(&length.to_le_bytes());
}

/// Gives every whole frame to `each`, and removes them.
pub fn frames(
    buffer: &mut Vec<u8>,
    mut each: impl FnMut(&[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut at = 0;
    while let Some(head) = buffer.get(at..at + 4) {
        let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        if length > FRAME_BYTES_MAX {
            bail!("a frame of {length} bytes");
        }
        let Some(body) = buffer.get(at + 4..at + 4 + length) else { break };
        each(body)?;
        at += 4 + length;
    }
    buffer.drain(..at);
    Ok(())
}

/// Runs `engine` as replica `me` until standard input ends.
pub fn run<E: Engine>(engine: E, peer: &Peer) -> anyhow::Result<()> {
    Server::start(engine, peer.me, &peer.members)?.serve(Busy::new(peer.busy()))
}

struct Server<E: Engine> {
    me: usize,
    engine: E,
    poll: Poll,
    listener: TcpListener,
    connections: BTreeMap<usize, Connection>,
    /// The connection on which each replica is written to.
    peers: [Option<usize>; REPLICAS],
    next: usize,
    out: Vec<(usize, E::Message)>,
    done: Vec<u64>,
    count: u64,
}

impl<E: Engine> Server<E> {
    fn start(mut engine: E, me: usize, members: &[SocketAddr]) -> anyhow::Result<Self> {
        engine.keep_up();
        let poll = Poll::new()?;
        let mut listener = TcpListener::bind(members[me])?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let mut this = Self {
            me,
            engine,
            poll,
            listener,
            connections: BTreeMap::new(),
            peers: [None; REPLICAS],
            next: 0,
            out: Vec::new(),
            done: Vec::new(),
            count: 0,
        };
        for (other, address) in members.iter().enumerate().filter(|(other, _)| *other != me) {
            let stream = dial(address)?;
            let at = this.add(stream, Some(other as u8))?;
            let connection = this.connections.get_mut(&at).context("it was added")?;
            frame(&mut connection.out, |body| body.push(me as u8));
            connection.flush();
            this.peers[other] = Some(at);
        }
        Ok(this)
    }

    fn add(&mut self, mut stream: TcpStream, from: Option<u8>) -> anyhow::Result<usize> {
        let at = self.next;
        self.next += 1;
        stream.set_nodelay(true)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, Token(at), interest)?;
        self.connections.insert(at, Connection::new(stream, from));
        Ok(at)
    }

    fn serve(&mut self, mut busy: Busy) -> anyhow::Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut spare = vec![0; 1 << 18];
        let mut ticked = Instant::now();
        loop {
            let patience = TICK.saturating_sub(ticked.elapsed());
            match self.poll.poll(&mut events, Some(busy.patience(patience))) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            let mut readable = Vec::new();
            for event in &events {
                match event.token() {
                    LISTENER => self.accept()?,
                    Token(at) => readable.push(at),
                }
            }
            if !readable.is_empty() {
                busy.note();
            }
            for at in readable {
                self.read(at, &mut spare)?;
            }
            if ticked.elapsed() >= TICK {
                ticked = Instant::now();
                self.engine.tick();
            }
            loop {
                self.engine.before_sync(&mut self.out);
                self.send();
                self.engine.sync()?;
                let has_more = self.engine.after_sync(&mut self.out, &mut self.done);
                self.send();
                if !has_more {
                    break;
                }
            }
        }
    }

    fn accept(&mut self) -> anyhow::Result<()> {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => self.add(stream, None)?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
        }
    }

    fn read(&mut self, at: usize, spare: &mut [u8]) -> anyhow::Result<()> {
        let Some(connection) = self.connections.get_mut(&at) else { return Ok(()) };
        let is_open = connection.fill(spare) && connection.flush();
        let Connection { from, read, out, .. } = connection;
        let engine = &mut self.engine;
        frames(read, |body| {
            match from {
                None => *from = body.first().copied(),
                Some(CLIENT) => {
                    let (tag, payload) = body.split_first_chunk().context("a short request")?;
                    let tag = u64::from_le_bytes(*tag);
                    if tag == WHO_LEADS {
                        reply(out, tag, u64::from(engine.leads()));
                    } else {
                        // Whoever leads later commits what was proposed here, and answers nobody.
                        let tag = (self.me as u64) << 56 | (at as u64) << 32 | tag;
                        engine.propose(tag, Bytes::copy_from_slice(payload));
                    }
                }
                Some(_) => engine.receive(E::decode(body)?),
            }
            Ok(())
        })?;
        if !(is_open && connection.flush()) {
            self.connections.remove(&at);
        }
        Ok(())
    }

    /// Writes what the engine said, and the replies, once to each socket.
    fn send(&mut self) {
        let mut touched = Vec::new();
        for (to, message) in self.out.drain(..) {
            let Some(at) = self.peers[to] else { continue };
            if let Some(connection) = self.connections.get_mut(&at) {
                frame(&mut connection.out, |body| E::encode(&message, body));
                touched.push(at);
            }
        }
        let leads = self.engine.leads();
        for tag in self.done.drain(..) {
            self.count += 1;
            if tag >> 56 != self.me as u64 {
                continue;
            }
            let at = (tag >> 32) as usize & 0xff_ffff;
            if let Some(connection) = self.connections.get_mut(&at).filter(|_| leads) {
                reply(&mut connection.out, tag & u64::from(u32::MAX), self.count);
                touched.push(at);
            }
        }
        touched.sort_unstable();
        touched.dedup();
        for at in touched {
            if self.connections.get_mut(&at).is_some_and(|connection| !connection.flush()) {
                self.connections.remove(&at);
            }
        }
    }
}

fn reply(out: &mut Vec<u8>, tag: u64, count: u64) {
    frame(out, |body| {
        body.extend_from_slice(&tag.to_le_bytes());
        body.extend_from_slice(&count.to_le_bytes());
    });
}

/// Connects to a replica that may not listen yet.
fn dial(address: &SocketAddr) -> anyhow::Result<TcpStream> {
    let begun = Instant::now();
    loop {
        match StdStream::connect(address) {
            Ok(stream) => {
                stream.set_nonblocking(true)?;
                return Ok(TcpStream::from_std(stream));
            }
            Err(error) if begun.elapsed().as_secs() > 20 => return Err(error.into()),
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}
