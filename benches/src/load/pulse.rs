//! The least that an idle group can cost: heartbeats and answers of their size, and nothing else.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use crate::load::process::Spent;

/// About what a heartbeat and an answer take on a connection.
const MESSAGE_BYTES: usize = 200;

/// A thread says `beats` heartbeats to each of the others of `replicas` threads, `interval` apart,
/// and each answers each, over blocking sockets. What this process spent meanwhile, which should do
/// nothing else.
///
/// # Errors
/// There is no loopback, or the system does not say what was spent.
pub fn run(replicas: usize, beats: u32, interval: Duration) -> anyhow::Result<Spent> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let others = 1..replicas;
    let answering =
        others.clone().map(|_| thread::spawn(move || answer(TcpStream::connect(address)?)));
    let answering: Vec<_> = answering.collect();
    let connections: Result<Vec<_>, _> = others.map(|_| listener.accept().map(|it| it.0)).collect();
    let mut connections = connections?;
    for connection in &connections {
        connection.set_nodelay(true)?;
    }
    let spent = || Spent::of(std::process::id()).context("no times in /proc");
    let before = spent()?;
    let began = Instant::now();
    for beat in 0..beats {
        for connection in &mut connections {
            connection.write_all(&[0; MESSAGE_BYTES])?;
        }
        for connection in &mut connections {
            connection.read_exact(&mut [0; MESSAGE_BYTES])?;
        }
        let next = began + interval * (beat + 1);
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    let spent = spent()?.since(&before);
    drop(connections);
    for thread in answering {
        thread.join().map_err(|_| anyhow::anyhow!("an answering thread panicked"))??;
    }
    Ok(spent)
}

/// Answers every message until the other end closes.
fn answer(mut connection: TcpStream) -> anyhow::Result<()> {
    connection.set_nodelay(true)?;
    let mut message = [0; MESSAGE_BYTES];
    loop {
        match connection.read_exact(&mut message) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            read => read?,
        }
        connection.write_all(&message)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_heartbeat_is_answered_by_all() {
        assert!(run(3, 5, Duration::ZERO).unwrap().processor > Duration::ZERO);
    }
}
