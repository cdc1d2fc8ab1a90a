//! The way between one client and the replicas: it loses, holds back and repeats what passes.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};
use vr_core::{
    Members,
    model::encoding::frame::{FRAME_HEADER_BYTES, FrameHeader},
};

/// What both ends of a connection begin with, up to and with the length of the rest.
const GREETING_BYTES: usize = 16;
/// How long anything may take here; far more than it needs.
const PATIENCE: Duration = Duration::from_secs(60);

/// What becomes of what comes along now.
#[derive(Clone, Copy, Debug)]
struct Rules {
    /// Whether requests go on to the replica; else they wait here, also for longer than their
    /// client lives.
    requests: bool,
    /// Whether replies go on to the client; else they are lost.
    replies: bool,
    /// Whether a new connection begins with a copy of everything that the client ever sent.
    repeat: bool,
    /// Connections that were made before the last break are closed.
    breaks: u64,
}

/// Takes one client's connections, at one address for each replica.
pub(crate) struct Relay {
    members: Members,
    rules: watch::Sender<Rules>,
    way: Arc<Way>,
    /// Ends the tasks when it is dropped.
    _tasks: JoinSet<()>,
}

/// What the connections of one client share.
struct Way {
    rules: watch::Receiver<Rules>,
    /// Whole messages, as the client sent them.
    sent: watch::Sender<Vec<Vec<u8>>>,
    /// How many connections are open.
    open: watch::Sender<usize>,
}

impl Relay {
    /// A way to `replicas`, on which nothing happens yet.
    pub(crate) async fn to(replicas: &str) -> Self {
        let rules = Rules { requests: true, replies: true, repeat: false, breaks: 0 };
        let (rules, seen) = watch::channel(rules);
        let way = Way { rules: seen, sent: watch::Sender::default(), open: watch::Sender::new(0) };
        let (way, mut tasks) = (Arc::new(way), JoinSet::new());
        let mut addresses = Vec::new();
        for replica in replicas.split(',') {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            addresses.push(listener.local_addr().unwrap().to_string());
            tasks.spawn(accept(listener, replica.parse().unwrap(), Arc::clone(&way)));
        }
        let members = addresses.join(",").parse().unwrap();
        Self { members, rules, way, _tasks: tasks }
    }

    /// The member list for the client.
    pub(crate) fn members(&self) -> Members {
        self.members.clone()
    }

    pub(crate) fn let_requests_pass(&self, pass: bool) {
        self.rules.send_modify(|rules| rules.requests = pass);
    }

    pub(crate) fn let_replies_pass(&self, pass: bool) {
        self.rules.send_modify(|rules| rules.replies = pass);
    }

    /// From now on each connection begins with a copy of everything that was ever sent.
    pub(crate) fn repeat(&self) {
        self.rules.send_modify(|rules| rules.repeat = true);
    }

    /// Closes all connections.
    pub(crate) fn break_connections(&self) {
        self.rules.send_modify(|rules| rules.breaks += 1);
    }

    /// How many messages the client has sent.
    pub(crate) fn sent(&self) -> usize {
        self.way.sent.borrow().len()
    }

    /// Waits until the client has sent more than `count` messages.
    pub(crate) async fn sends_more_than(&self, count: usize) {
        let mut sent = self.way.sent.subscribe();
        let more = timeout(PATIENCE, sent.wait_for(|sent| sent.len() > count)).await;
        more.expect("it sends again").unwrap();
    }

    /// Waits until no connection is open: what was held back for a client that is gone has arrived,
    /// or its replica is gone, too.
    pub(crate) async fn drained(&self) {
        let mut open = self.way.open.subscribe();
        let drained = timeout(PATIENCE, open.wait_for(|open| *open == 0)).await;
        drained.expect("connections end").unwrap();
    }
}

async fn accept(listener: TcpListener, replica: SocketAddr, way: Arc<Way>) {
    let mut connections = JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.unwrap();
        let way = Arc::clone(&way);
        connections.spawn(async move {
            way.open.send_modify(|open| *open += 1);
            let breaks = way.rules.borrow().breaks;
            let mut rules = way.rules.clone();
            tokio::select! {
                // However it ends: both ends see that it did, and do what they do then.
                _ = connection(client, replica, &way) => {}
                _ = rules.wait_for(|rules| rules.breaks > breaks) => {}
            }
            way.open.send_modify(|open| *open -= 1);
        });
    }
}

/// One connection, from its first byte until both ends are gone.
async fn connection(client: TcpStream, replica: SocketAddr, way: &Way) -> io::Result<()> {
    let replica = TcpStream::connect(replica).await?;
    client.set_nodelay(true)?;
    replica.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_replica, to_replica) = replica.into_split();
    let (_, back) = tokio::join!(
        requests(from_client, to_replica, way),
        replies(from_replica, to_client, way.rules.clone()),
    );
    back
}

/// Carries what the client sends until the client has closed its end and all of it is there.
async fn requests(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, way: &Way) -> io::Result<()> {
    to.write_all(&greeting(&mut from).await?).await?;
    let (held, mut waiting) = mpsc::unbounded_channel();
    if way.rules.borrow().repeat {
        held.send(way.sent.borrow().concat()).map_err(io::Error::other)?;
    }
    let mut rules = way.rules.clone();
    let read = async {
        while let Ok(message) = message(&mut from).await {
            way.sent.send_modify(|sent| sent.push(message.clone()));
            held.send(message).map_err(io::Error::other)?;
        }
        drop(held);
        Ok(())
    };
    let write = async {
        while let Some(message) = waiting.recv().await {
            rules.wait_for(|rules| rules.requests).await.map_err(io::Error::other)?;
            to.write_all(&message).await?;
        }
        to.shutdown().await
    };
    tokio::try_join!(read, write).map(|_| ())
}

/// Carries what the replica sends until the replica has closed its end. That the client is gone
/// does not stop it: its requests may still be under way.
async fn replies(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    rules: watch::Receiver<Rules>,
) -> io::Result<()> {
    to.write_all(&greeting(&mut from).await?).await?;
    loop {
        let message = message(&mut from).await?;
        if rules.borrow().replies {
            let _gone = to.write_all(&message).await;
        }
    }
}

async fn greeting(from: &mut OwnedReadHalf) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; GREETING_BYTES];
    from.read_exact(&mut bytes).await?;
    let length = u32::from_le_bytes(bytes[GREETING_BYTES - 4..].try_into().unwrap());
    rest(from, bytes, usize::try_from(length).unwrap()).await
}

async fn message(from: &mut OwnedReadHalf) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; FRAME_HEADER_BYTES];
    from.read_exact(&mut bytes).await?;
    let header = FrameHeader::decode(&bytes).map_err(io::Error::other)?;
    rest(from, bytes, usize::try_from(header.body_length).unwrap()).await
}

async fn rest(from: &mut OwnedReadHalf, mut bytes: Vec<u8>, more: usize) -> io::Result<Vec<u8>> {
    let read = bytes.len();
    bytes.resize(read + more, 0);
    from.read_exact(&mut bytes[read..]).await?;
    Ok(bytes)
}
