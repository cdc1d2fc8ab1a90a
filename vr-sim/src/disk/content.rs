//! The bytes of one simulated file, sparse: what was never written is zero.

use std::collections::BTreeMap;

/// Bytes that a real disk writes at once, or not at all.
pub(crate) const SECTOR_BYTES: u64 = 512;

const PAGE_BYTES: usize = 4096;

#[derive(Clone, Debug, Default)]
pub(crate) struct Content {
    pub(crate) length: u64,
    pages: BTreeMap<u64, Box<[u8; PAGE_BYTES]>>,
}

impl Content {
    /// Becomes `length` zeros.
    pub(crate) fn fill(&mut self, length: u64) {
        self.length = length;
        self.pages.clear();
    }

    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) {
        self.length = self.length.max(offset.saturating_add(length_of(bytes)));
        for (page, start, part) in pieces(offset, bytes.len()) {
            let page = self.pages.entry(page).or_insert_with(|| Box::new([0; PAGE_BYTES]));
            let place = page.get_mut(start..start + part.len());
            if let (Some(place), Some(bytes)) = (place, bytes.get(part)) {
                place.copy_from_slice(bytes);
            }
        }
    }

    /// Copies what is at `offset` to `into`; where there is nothing, `into` stays as it is.
    pub(crate) fn read(&self, offset: u64, into: &mut [u8]) {
        for (page, start, part) in pieces(offset, into.len()) {
            let Some(page) = self.pages.get(&page) else { continue };
            if let (Some(bytes), Some(into)) =
                (page.get(start..start + part.len()), into.get_mut(part))
            {
                into.copy_from_slice(bytes);
            }
        }
    }

    /// Turns one bit over; false beyond the end.
    pub(crate) fn flip(&mut self, offset: u64, bit: u8) -> bool {
        if offset >= self.length {
            return false;
        }
        let mut byte = [0];
        self.read(offset, &mut byte);
        self.write(offset, &byte.map(|byte| byte ^ (1 << (bit % 8))));
        true
    }
}

pub(crate) fn length_of(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// Cuts a range at page boundaries: page number, start inside the page, part of the buffer.
fn pieces(
    offset: u64,
    length: usize,
) -> impl Iterator<Item = (u64, usize, core::ops::Range<usize>)> {
    let page_bytes = u64::try_from(PAGE_BYTES).unwrap_or(u64::MAX);
    let mut done = 0;
    core::iter::from_fn(move || {
        if done >= length {
            return None;
        }
        let at = offset.saturating_add(u64::try_from(done).unwrap_or(u64::MAX));
        let start = usize::try_from(at % page_bytes).unwrap_or(0);
        let part = done..length.min(done + PAGE_BYTES - start);
        done = part.end;
        Some((at / page_bytes, start, part))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_across_pages_come_back() {
        let mut content = Content::default();
        let bytes: Vec<u8> = (0..=255).cycle().take(10_000).collect();
        content.write(4000, &bytes);
        let mut back = vec![0; 10_000];
        content.read(4000, &mut back);
        assert_eq!((back, content.length), (bytes, 14_000));
    }

    #[test]
    fn a_flipped_bit_is_one_bit() {
        let mut content = Content::default();
        content.write(0, &[0xff; 3]);
        assert!(content.flip(1, 4));
        assert!(!content.flip(3, 0));
        let mut back = [0; 3];
        content.read(0, &mut back);
        assert_eq!(back, [0xff, 0xef, 0xff]);
    }
}
