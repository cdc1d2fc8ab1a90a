//! What the machine does at best: how fast its disk takes a file, and how fast loopback is.

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::Path,
    thread,
    time::Instant,
};

use anyhow::anyhow;

use crate::load::summary::count;

/// Bytes that are written at a time.
const BLOCK_BYTES: usize = 1 << 20;

/// MiB a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    /// Written to one file, one block behind the other, and synced once at the end.
    pub disk: f64,
    /// Through one connection from a thread to another.
    pub loopback: f64,
}

impl Limits {
    /// With `mib` MiB, and a file below `dir`.
    ///
    /// # Errors
    /// The system refused.
    pub fn measure(dir: &Path, mib: u64) -> anyhow::Result<Self> {
        let per_second = |began: Instant| count(mib) / began.elapsed().as_secs_f64().max(1e-9);
        let began = Instant::now();
        write_file(&dir.join("limits"), mib)?;
        let disk = per_second(began);
        let began = Instant::now();
        send(mib)?;
        Ok(Self { disk, loopback: per_second(began) })
    }

    /// The smaller one.
    #[must_use]
    pub const fn least(&self) -> f64 {
        self.disk.min(self.loopback)
    }
}

/// Leaves nothing.
fn write_file(path: &Path, mib: u64) -> anyhow::Result<()> {
    let mut file = File::create(path)?;
    let block = vec![0x5a; BLOCK_BYTES];
    for _ in 0..mib {
        file.write_all(&block)?;
    }
    file.sync_all()?;
    fs::remove_file(path)?;
    Ok(())
}

fn send(mib: u64) -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut sender = TcpStream::connect(listener.local_addr()?)?;
    let (mut receiver, _) = listener.accept()?;
    let receiving = thread::spawn(move || -> anyhow::Result<()> {
        let mut block = vec![0; BLOCK_BYTES];
        for _ in 0..mib {
            receiver.read_exact(&mut block)?;
        }
        Ok(())
    });
    let block = vec![0x5a; BLOCK_BYTES];
    for _ in 0..mib {
        sender.write_all(&block)?;
    }
    receiving.join().map_err(|_| anyhow!("the receiver panicked"))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_are_measured_and_nothing_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let limits = Limits::measure(dir.path(), 2).unwrap();
        assert!(limits.disk > 0.0 && limits.loopback > 0.0);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!((Limits { disk: 3.0, loopback: 2.0 }.least() - 2.0).abs() < 1e-9);
    }
}
