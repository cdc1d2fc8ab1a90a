//! Accepts Redis clients, and gives each connection a session.

use std::{io, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::timeout,
};
use tracing::{debug, warn};

use crate::kv::{
    resp::{Answer, Decoder, Protocol, ProtocolError},
    session::{Backend, Next, Session},
};

/// The most connections at once; a further one is told so and closed.
pub const CONNECTIONS_MAX: usize = 10_000;
/// The most commands that are taken from a connection before they are answered.
pub const RUN_COMMANDS_MAX: usize = 1024;
/// How long a client may refuse to take its answers before its connection is closed.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long, and how much, a refused client may go on sending before its connection is reset.
const LINGER: (Duration, u64) = (Duration::from_secs(1), 16 << 20);
/// How much is read at a time.
const READ_BYTES: usize = 16 << 10;

/// Serves clients on `listener` until `stop` is true, then ends each connection behind the command
/// that it is in. Out of file descriptors is no reason to end: accepting pauses.
pub async fn serve(
    listener: TcpListener,
    backend: Arc<dyn Backend>,
    mut stop: watch::Receiver<bool>,
) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    let mut number = 0_u64;
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if concerns_one_connection(&error) => continue,
            Err(error) => {
                // Mostly "too many open files": the connections that end make room.
                warn!(%error, "cannot accept a client");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        number += 1;
        let place = Arc::clone(&room).try_acquire_owned();
        let (backend, stop) = (Arc::clone(&backend), stop.clone());
        let connection = number;
        connections.spawn(async move {
            let ended = match place {
                Ok(_place) => converse(stream, &*backend, connection, stop).await,
                Err(_) => refuse(stream).await,
            };
            debug!(connection, %peer, error = ended.err().map(tracing::field::display), "client left");
        });
    }
    while connections.join_next().await.is_some() {}
}

fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

async fn refuse(mut stream: TcpStream) -> io::Result<()> {
    let mut out = BytesMut::new();
    Answer::Error("ERR max number of clients reached".to_owned()).encode(Protocol::Two, &mut out);
    stream.write_all(&out).await
}

/// One client, until it leaves, breaks the protocol, or the replica stops.
async fn converse(
    mut stream: TcpStream,
    backend: &dyn Backend,
    connection: u64,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut session = Session::new(backend, connection);
    let mut decoder = Decoder::default();
    let (mut buffer, mut out) = (BytesMut::new(), BytesMut::new());
    loop {
        let (commands, broken) = take_run(&mut decoder, &mut buffer);
        if commands.is_empty() && broken.is_none() {
            buffer.reserve(READ_BYTES);
            let read = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return Ok(()),
                read = stream.read_buf(&mut buffer) => read?,
            };
            if read == 0 {
                return Ok(());
            }
            continue;
        }
        let next = session.run(commands, &mut out).await;
        if let Some(error) = &broken
            && next == Next::Continue
        {
            Answer::Error(error.to_string()).encode(session.protocol(), &mut out);
        }
        timeout(WRITE_TIMEOUT, stream.write_all(&out)).await??;
        out.clear();
        if broken.is_some() || next == Next::Close {
            return linger(stream).await;
        }
    }
}

/// The commands that have arrived whole, and the error behind them, if there is one.
fn take_run(
    decoder: &mut Decoder,
    buffer: &mut BytesMut,
) -> (Vec<Vec<Bytes>>, Option<ProtocolError>) {
    let mut commands = Vec::new();
    while commands.len() < RUN_COMMANDS_MAX {
        match decoder.next(buffer) {
            Ok(Some(words)) => commands.push(words),
            Ok(None) => break,
            Err(error) => return (commands, Some(error)),
        }
    }
    (commands, None)
}

/// Closes so that the last answer arrives: unread bytes would reset the connection and take the
/// answer with them.
async fn linger(mut stream: TcpStream) -> io::Result<()> {
    stream.shutdown().await?;
    let (time, bytes) = LINGER;
    let mut rest = stream.take(bytes);
    // Whoever goes on sending after this is cut off, which is not an error.
    let _ = timeout(time, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await;
    Ok(())
}
