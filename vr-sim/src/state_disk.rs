//! The disk of a replica's state machine, which outlives its process: what was made durable together
//! is back together, unless somebody meddled with it.

use std::sync::{Arc, Mutex};

use bytes::Bytes;

use crate::{executor::lock, prng::Prng};

/// Earlier states that are remembered, for somebody to put back.
const EARLIER_MAX: usize = 3;

/// Where the state of simulated replicas is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StatePlace {
    /// In memory, gone with the process.
    #[default]
    Memory,
    /// On a disk of its own.
    Disk,
    /// On a disk of its own that is now and then empty, damaged, or an earlier copy when its replica
    /// starts.
    MeddledDisk,
}

/// What was made durable together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The state.
    pub state: Vec<u8>,
    /// What belongs to it.
    pub companion: Bytes,
}

/// A state machine's disk; clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct StateDisk {
    images: Arc<Mutex<Vec<Image>>>,
}

impl StateDisk {
    /// What is on it.
    #[must_use]
    pub fn image(&self) -> Option<Image> {
        lock(&self.images).last().cloned()
    }

    /// Replaces what is on it, at once and for good.
    pub fn write(&self, image: Image) {
        let mut images = lock(&self.images);
        images.push(image);
        if images.len() > EARLIER_MAX + 1 {
            images.remove(0);
        }
    }

    /// Nothing is on it any more.
    pub fn wipe(&self) {
        lock(&self.images).clear();
    }

    /// An earlier copy takes the place of what is on it, if there was one.
    pub fn put_back(&self) {
        let mut images = lock(&self.images);
        if images.len() > 1 {
            images.pop();
        }
    }

    /// A bit of the companion rots.
    pub fn rot(&self, bit: u64) {
        if let Some(image) = lock(&self.images).last_mut() {
            let mut companion = image.companion.to_vec();
            let length = u64::try_from(companion.len()).unwrap_or(1).max(1);
            let at = usize::try_from(bit / 8 % length).unwrap_or(0);
            if let Some(byte) = companion.get_mut(at) {
                *byte ^= 1 << (bit % 8);
            }
            image.companion = Bytes::from(companion);
        }
    }

    /// Does one of these, or mostly nothing.
    pub(crate) fn meddle(&self, rng: &mut Prng) {
        match rng.below(12) {
            0 => self.wipe(),
            1 => self.put_back(),
            2 => self.rot(rng.next_u64()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(number: u8) -> Image {
        Image { state: vec![number], companion: Bytes::from(vec![number; 4]) }
    }

    #[test]
    fn the_last_image_counts_and_an_earlier_one_can_be_put_back() {
        let disk = StateDisk::default();
        assert_eq!(disk.image(), None);
        (1..=9).for_each(|number| disk.write(image(number)));
        assert_eq!(disk.image(), Some(image(9)));
        (0..9).for_each(|_| disk.put_back());
        assert_eq!(disk.image(), Some(image(6)));
        disk.rot(13);
        assert_ne!(disk.image(), Some(image(6)));
        disk.wipe();
        assert_eq!(disk.image(), None);
    }
}
