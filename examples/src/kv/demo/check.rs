//! After the storm: is every acknowledged write there, once, and the same everywhere?

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, bail};
use redis_protocol::resp2::types::{BytesFrame, Resp2Frame};
use tokio::time::sleep;

use crate::kv::{
    client::RedisClient,
    demo::load::{Record, Worker},
};

/// How many keys are read back at a time.
const KEYS_AT_ONCE: usize = 200;
/// How often replicas are asked for their digests until all are at the same op.
const DIGEST_ATTEMPTS: u32 = 500;
/// The pause between two attempts.
const DIGEST_PAUSE: Duration = Duration::from_millis(20);

/// What reading everything back from one replica has shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Acknowledged writes that are missing or hold another value.
    pub lost: u64,
    /// Increments that were applied more than once.
    pub doubled: u64,
}

/// Reads every acknowledged write back from the replica at `address`.
///
/// # Errors
/// The replica cannot be asked.
pub async fn read_back(address: SocketAddr, records: &[Record]) -> Result<Found> {
    let mut client = RedisClient::connect(address).await?;
    let mut found = Found::default();
    for (name, record) in records.iter().enumerate() {
        let written: Vec<_> = record.written.iter().collect();
        for some in written.chunks(KEYS_AT_ONCE) {
            found.lost += lost_of(&mut client, some).await?;
        }
        let value = client.call(["GET", &Worker::counter_key(name)]).await?;
        let mut counter = record.counter;
        counter.finish(value.as_str().and_then(|text| text.parse().ok()).unwrap_or(0));
        found.lost += counter.lost;
        found.doubled += counter.doubled;
    }
    Ok(found)
}

async fn lost_of(client: &mut RedisClient, written: &[(&String, &Vec<u8>)]) -> Result<u64> {
    let words = std::iter::once("MGET").chain(written.iter().map(|(key, _)| key.as_str()));
    let answer = client.call(words).await?;
    let BytesFrame::Array(values) = answer else {
        bail!("a replica answered {answer:?} to MGET");
    };
    if values.len() != written.len() {
        bail!("a replica answered {} values for {} keys", values.len(), written.len());
    }
    let wrong = values
        .iter()
        .zip(written)
        .filter(|(value, (_, promised))| value.as_bytes() != Some(promised.as_slice()));
    Ok(u64::try_from(wrong.count()).unwrap_or(u64::MAX))
}

/// Waits until all replicas have executed the same op, and returns their digests: op and checksum
/// of the state in one text each.
///
/// # Errors
/// A replica cannot be asked, or they do not come to the same op.
pub async fn digests(addresses: &[SocketAddr]) -> Result<Vec<String>> {
    let mut last = Vec::new();
    for _ in 0..DIGEST_ATTEMPTS {
        last.clear();
        for address in addresses {
            let mut client = RedisClient::connect(*address).await?;
            let answer = client.call(["DEBUG", "DIGEST"]).await?;
            last.push(answer.as_str().context("a digest is a text")?.to_owned());
        }
        let mut ops = last.iter().map(|digest| digest.split(' ').next());
        let first = ops.next();
        if ops.all(|op| Some(op) == first) {
            return Ok(last);
        }
        sleep(DIGEST_PAUSE).await;
    }
    bail!("the replicas do not come to the same op: {last:?}")
}
