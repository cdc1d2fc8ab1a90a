//! Relays between one replica and the others: they count what it receives, and cut its connections.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    runtime::{Builder, Handle},
    sync::watch,
};

/// Bytes that are read at a time.
const BLOCK_BYTES: usize = 256 << 10;

/// Passes on everything between one replica and the others, on a thread of its own, until it is
/// dropped.
#[derive(Debug)]
pub struct Relay {
    runtime: Handle,
    /// How often everything was cut. Its end is the thread's end.
    cuts: watch::Sender<u64>,
    received: Arc<AtomicU64>,
}

/// Which bytes of a connection the replica receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Receives {
    /// Others dial it.
    WhatIsDialled,
    /// It dials another.
    WhatAnswers,
}

impl Relay {
    /// A relay that is between nobody yet.
    ///
    /// # Errors
    /// The system refused.
    pub fn new() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_io().build()?;
        let (cuts, mut seen) = watch::channel(0);
        let handle = runtime.handle().clone();
        std::thread::Builder::new().name("relay".to_owned()).spawn(move || {
            runtime.block_on(async { while seen.changed().await.is_ok() {} });
        })?;
        Ok(Self { runtime: handle, cuts, received: Arc::default() })
    }

    /// Stands between a replica and the others; the members' addresses that each must be given.
    ///
    /// # Errors
    /// The system refused.
    pub fn put_around(
        &self,
        replica: usize,
        addresses: &[SocketAddr],
    ) -> io::Result<Vec<Vec<SocketAddr>>> {
        let (mut of_others, mut own) = (addresses.to_vec(), addresses.to_vec());
        for (index, address) in addresses.iter().enumerate() {
            let is_its = index == replica;
            let side = if is_its { Receives::WhatIsDialled } else { Receives::WhatAnswers };
            let list = if is_its { &mut of_others } else { &mut own };
            if let Some(place) = list.get_mut(index) {
                *place = self.listen(*address, side)?;
            }
        }
        let of = |index| if index == replica { own.clone() } else { of_others.clone() };
        Ok((0..addresses.len()).map(of).collect())
    }

    /// Cuts every connection that there is; new ones are passed on.
    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Bytes that the replica received so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Passes on to `target` what dials the address that it returns.
    fn listen(&self, target: SocketAddr, side: Receives) -> io::Result<SocketAddr> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (cuts, received) = (self.cuts.subscribe(), Arc::clone(&self.received));
        self.runtime.spawn(async move {
            let listener = TcpListener::from_std(listener)?;
            loop {
                let (dialled, _) = listener.accept().await?;
                tokio::spawn(pass(dialled, target, side, cuts.clone(), Arc::clone(&received)));
            }
            #[expect(unreachable_code, reason = "says what `?` returns")]
            io::Result::Ok(())
        });
        Ok(address)
    }
}

/// Passes on both directions of one connection, until an end closes it or everything is cut.
async fn pass(
    dialled: TcpStream,
    target: SocketAddr,
    side: Receives,
    mut cuts: watch::Receiver<u64>,
    received: Arc<AtomicU64>,
) -> io::Result<()> {
    let _ = cuts.borrow_and_update();
    let answering = TcpStream::connect(target).await?;
    for stream in [&dialled, &answering] {
        stream.set_nodelay(true)?;
    }
    let (from_dialler, to_dialler) = dialled.into_split();
    let (from_target, to_target) = answering.into_split();
    let (there, back) = match side {
        Receives::WhatIsDialled => (Some(&*received), None),
        Receives::WhatAnswers => (None, Some(&*received)),
    };
    tokio::select! {
        passed = async {
            tokio::try_join!(pump(from_dialler, to_target, there), pump(from_target, to_dialler, back))
        } => passed.map(drop),
        _ = cuts.changed() => Ok(()),
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut into: OwnedWriteHalf,
    count: Option<&AtomicU64>,
) -> io::Result<()> {
    let mut block = vec![0; BLOCK_BYTES];
    loop {
        let read = from.read(&mut block).await?;
        if read == 0 {
            return into.shutdown().await;
        }
        if let Some(count) = count {
            count.fetch_add(u64::try_from(read).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
        into.write_all(block.get(..read).unwrap_or_default()).await?;
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    #[test]
    fn what_passes_is_counted_on_the_side_of_the_replica_until_it_is_cut() {
        let replicas = [0, 1].map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        let addresses = replicas.each_ref().map(|replica| replica.local_addr().unwrap());
        let relay = Relay::new().unwrap();
        let seen = relay.put_around(1, &addresses).unwrap();
        assert_eq!((seen[0][0], seen[1][1]), (addresses[0], addresses[1]));

        let mut there = TcpStream::connect(seen[0][1]).unwrap();
        let (mut here, _) = replicas[1].accept().unwrap();
        let mut word = [0; 5];
        there.write_all(b"hello").unwrap();
        here.read_exact(&mut word).unwrap();
        here.write_all(b"welcome").unwrap();
        there.read_exact(&mut word).unwrap();
        assert_eq!((&word, relay.received()), (b"welco", 5));

        let mut here = TcpStream::connect(seen[1][0]).unwrap();
        let (mut other, _) = replicas[0].accept().unwrap();
        here.write_all(b"hello").unwrap();
        other.read_exact(&mut word).unwrap();
        other.write_all(b"thank").unwrap();
        here.read_exact(&mut word).unwrap();
        assert_eq!(relay.received(), 10);

        relay.cut();
        let ended = here.read(&mut word);
        assert!(
            ended.is_ok_and(|read| read == 0) && other.read(&mut word).is_ok_and(|read| read == 0)
        );
    }
}
