//! One established socket: what waits to be written, and what was received.
//!
//! Both directions are driven by whoever polls the transport, without a task in between: a write is
//! tried at once, and the rest follows when the socket says that it takes more.

use std::{
    collections::VecDeque,
    future::Future,
    io::{self, ErrorKind, IoSlice},
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Instant,
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use vr_core::{
    Backpressure, Received,
    model::{
        encoding::{CodecError, frame::FrameParts, message},
        message::Envelope,
        types::Peer,
    },
};

use crate::{
    frame::{FrameError, Inbox},
    handshake::Carries,
    ready::ReadyWaker,
    repeated::Repeated,
};

/// Segments that one system call writes. Where payloads are shared, a message has two for each.
const WRITTEN_SEGMENTS_MAX: usize = 512;

/// Segments that the first of several calls writes: the other end reads them meanwhile.
const FIRST_SEGMENTS_MAX: usize = 64;

/// Segments of most messages of one operation; room for more is not made for them.
const FEW_SEGMENTS: usize = 8;

/// Items that one connection delivers before the next has its turn.
pub(crate) const RECEIVED_ITEMS_MAX: usize = 256;

/// Bytes read from one connection before the next has its turn.
const RECEIVED_BYTES_MAX: usize = 1 << 20;

/// Why a connection came to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    /// The other end closed it.
    #[error("closed by the other end")]
    Closed,
    /// The system says so.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What arrives are no frames, or too long ones.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A frame holds no message.
    #[error("a frame holds no message: {0}")]
    Message(#[from] CodecError),
    /// A frame began and did not go on.
    #[error("a frame stopped in the middle")]
    Stalled,
}

impl Broken {
    /// Whether an operator should hear of it; that processes end is nothing to complain about.
    pub(crate) const fn is_complaint(&self) -> bool {
        match self {
            Self::Closed | Self::Io(_) => false,
            Self::Frame(_) | Self::Message(_) | Self::Stalled => true,
        }
    }
}

/// How much one connection may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Bytes of the longest frame that is sent.
    pub(crate) sent_bytes_max: u32,
    /// Bytes of the longest frame that is accepted.
    pub(crate) received_bytes_max: u32,
    /// Bytes that wait for the system to take them.
    pub(crate) queue_bytes_max: u32,
    /// The version of all frames, as the handshake agreed.
    pub(crate) version: u16,
}

/// Whether a connection has more to deliver at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It took all it may take in one turn; more is there or may be there.
    More,
    /// Nothing is left; the waker will say when something comes.
    Idle,
}

/// What one call to the system read.
#[derive(Clone, Copy, Debug)]
struct Arrived {
    bytes: usize,
    /// There was no room for more, so that more may be there.
    has_filled: bool,
}

/// One established socket.
#[derive(Debug)]
pub(crate) struct Connection {
    peer: Peer,
    carries: Carries,
    stream: TcpStream,
    inbox: Inbox,
    /// Of all frames.
    version: u16,
    /// Encoded and not yet cut into segments.
    parts: FrameParts,
    /// Cut and not yet taken by the system.
    segments: VecDeque<Bytes>,
    segment_bytes: usize,
    queue_bytes_max: usize,
    /// Bytes of the longest frame that the other end accepts.
    sent_bytes_max: usize,
    ready: Arc<ReadyWaker>,
    waker: Waker,
    /// When the frame that has begun last grew; `None` between frames and while more is there.
    partial_since: Option<Instant>,
}

impl Connection {
    pub(crate) fn new(
        peer: Peer,
        carries: Carries,
        stream: TcpStream,
        limits: Limits,
        ready: Arc<ReadyWaker>,
    ) -> Self {
        let waker = Waker::from(Arc::clone(&ready));
        Self {
            peer,
            carries,
            stream,
            inbox: Inbox::new(limits.received_bytes_max),
            version: limits.version,
            parts: FrameParts::with_limit(limits.sent_bytes_max).in_version(limits.version),
            segments: VecDeque::new(),
            segment_bytes: 0,
            queue_bytes_max: usize::try_from(limits.queue_bytes_max).unwrap_or(usize::MAX),
            sent_bytes_max: usize::try_from(limits.sent_bytes_max).unwrap_or(usize::MAX),
            ready,
            waker,
            partial_since: None,
        }
    }

    pub(crate) const fn peer(&self) -> Peer {
        self.peer
    }

    /// Where it comes in the fixed order in which connections are read.
    pub(crate) const fn rank(&self) -> (Carries, Peer) {
        (self.carries, self.peer)
    }

    pub(crate) const fn ready(&self) -> &Arc<ReadyWaker> {
        &self.ready
    }

    pub(crate) const fn partial_since(&self) -> Option<Instant> {
        self.partial_since
    }

    /// Whether nothing waits for the system to take it.
    pub(crate) fn is_drained(&self) -> bool {
        self.segments.is_empty() && self.parts.is_empty()
    }

    /// Encodes `envelope` behind what waits already, or takes the bytes of the same for another
    /// replica.
    pub(crate) fn queue(
        &mut self,
        envelope: &Envelope,
        repeated: &mut Repeated,
    ) -> Result<(), Backpressure> {
        let queued = self.segment_bytes + self.parts.len();
        if queued > 0 && queued >= self.queue_bytes_max {
            return Err(Backpressure::QueueFull);
        }
        if !Repeated::is_for_several(envelope) {
            return self.encode(envelope);
        }
        self.cut();
        if let Some((segments, bytes)) = repeated.get(envelope, self.version) {
            if bytes > self.sent_bytes_max {
                return Err(Backpressure::TooLarge);
            }
            self.segment_bytes += bytes;
            self.segments.extend(segments.iter().cloned());
            return Ok(());
        }
        let before = self.segments.len();
        self.encode(envelope)?;
        self.cut();
        repeated.note(envelope, self.version, self.segments.range(before..));
        Ok(())
    }

    fn encode(&mut self, envelope: &Envelope) -> Result<(), Backpressure> {
        message::encode(envelope, &mut self.parts).map_err(|error| {
            tracing::debug!(to = %self.peer, reason = %error, "message not sent");
            Backpressure::TooLarge
        })
    }

    /// Makes segments of what is encoded.
    fn cut(&mut self) {
        if !self.parts.is_empty() {
            self.segment_bytes += self.parts.len();
            self.parts.take_segments(&mut self.segments);
        }
    }

    /// Writes until nothing is left or the socket takes no more; then the waker will say when.
    pub(crate) fn write(&mut self) -> Result<(), Broken> {
        self.cut();
        let mut begun = false;
        while !self.segments.is_empty() {
            let written = if self.segments.len() <= FEW_SEGMENTS {
                self.try_write::<FEW_SEGMENTS>()
            } else if begun {
                self.try_write::<WRITTEN_SEGMENTS_MAX>()
            } else {
                self.try_write::<FIRST_SEGMENTS_MAX>()
            };
            begun = true;
            match written {
                Ok(0) => return Err(Broken::Closed),
                Ok(written) => self.written(written),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let mut context = Context::from_waker(&self.waker);
                    match self.stream.poll_write_ready(&mut context) {
                        Poll::Ready(result) => result?,
                        Poll::Pending => return Ok(()),
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Writes some of the first `N` segments, with one system call.
    fn try_write<const N: usize>(&self) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); N];
        let mut count = 0;
        for (slice, segment) in slices.iter_mut().zip(&self.segments) {
            *slice = IoSlice::new(segment);
            count += 1;
        }
        self.stream.try_write_vectored(slices.split_at(count).0)
    }

    /// Appends what has arrived, up to the limits of one turn.
    pub(crate) fn read(
        &mut self,
        spare: &mut BytesMut,
        into: &mut Vec<Received>,
    ) -> Result<Turn, Broken> {
        let items_max = into.len() + RECEIVED_ITEMS_MAX;
        let (mut bytes, mut is_drained) = (0, false);
        loop {
            while let Some((header, body)) = self.inbox.next_frame()? {
                if header.version != self.version {
                    let value = header.version.into();
                    return Err(CodecError::Invalid { what: "wire version", value }.into());
                }
                let envelope = Box::new(message::decode_body(&header, &body)?);
                into.push(Received::Envelope { from: self.peer, envelope });
                if into.len() >= items_max {
                    self.partial_since = None;
                    return Ok(Turn::More);
                }
            }
            if bytes >= RECEIVED_BYTES_MAX {
                self.partial_since = None;
                return Ok(Turn::More);
            }
            let arrived = match is_drained && self.poll_readable()?.is_pending() {
                true => Poll::Pending,
                false => self.read_once(spare)?,
            };
            match arrived {
                Poll::Ready(Arrived { bytes: 0, .. }) => return Err(Broken::Closed),
                Poll::Ready(arrived) => {
                    bytes += arrived.bytes;
                    is_drained = !arrived.has_filled;
                }
                Poll::Pending => {
                    self.note_partial(bytes > 0);
                    return Ok(Turn::Idle);
                }
            }
        }
    }

    /// Whether something is there to be read, without getting ready to read it; if not, the waker
    /// will say when.
    fn poll_readable(&self) -> io::Result<Poll<()>> {
        Ok(self.stream.poll_read_ready(&mut Context::from_waker(&self.waker))?)
    }

    fn note_partial(&mut self, has_grown: bool) {
        if !self.inbox.is_partial() {
            self.partial_since = None;
        } else if has_grown || self.partial_since.is_none() {
            self.partial_since = Some(Instant::now());
        }
    }

    /// Writes what is left, within the time that the caller allows, and waits until the other end
    /// has read it; then the connection can be dropped without taking anything back.
    pub(crate) async fn finish(mut self) -> io::Result<Self> {
        self.parts.take_segments(&mut self.segments);
        while let Some(segment) = self.segments.pop_front() {
            self.stream.write_all(&segment).await?;
        }
        match self.carries {
            Carries::Data | Carries::All => {
                self.stream.shutdown().await?;
                let mut unheard = [0; 1024];
                while self.stream.read(&mut unheard).await? > 0 {}
            }
            // They close with the data lane, whose end is the end of the link.
            Carries::Control | Carries::Bulk => {}
        }
        Ok(self)
    }

    fn read_once(&mut self, spare: &mut BytesMut) -> io::Result<Poll<Arrived>> {
        let room = self.inbox.room(spare);
        let space = room.capacity() - room.len();
        let mut context = Context::from_waker(&self.waker);
        let read = pin!(self.stream.read_buf(room)).poll(&mut context);
        self.inbox.gather(spare);
        Ok(read?.map(|bytes| Arrived { bytes, has_filled: bytes >= space }))
    }

    fn written(&mut self, mut bytes: usize) {
        self.segment_bytes = self.segment_bytes.saturating_sub(bytes);
        while let Some(first) = self.segments.front_mut() {
            if first.len() > bytes {
                first.advance(bytes);
                return;
            }
            bytes -= first.len();
            self.segments.pop_front();
        }
    }
}
