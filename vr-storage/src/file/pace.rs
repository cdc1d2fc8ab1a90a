//! Which batches are written on the thread that runs the node, where that is wanted at all.

/// Bytes of entries up to which a batch is written there whatever else goes on: it takes no longer
/// than handing it over.
const SMALL_BYTES: u64 = 8 << 10;
/// So many batches in turn behind which nothing gathered show that nothing will.
const ALONE_MIN: u32 = 4;
/// One of so many larger batches is handed over all the same, to see whether something gathers.
const PROBE_EVERY: u32 = 16;

/// Hands a batch to the thread that writes if the node has something to do meanwhile, and only then:
/// two hand-overs are longer than what else an operation takes.
///
/// What gathers behind a batch that the thread writes shows that it has. Behind one that the node
/// writes itself nothing can.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Batches of up to so many bytes may be written by the node itself.
    bytes_max: u64,
    /// Batches that the thread wrote and behind which nothing gathered, in turn.
    alone: u32,
    /// Larger batches that the node wrote itself, in turn.
    own: u32,
    /// Whether the thread wrote the last one.
    handed_over: bool,
}

impl Pace {
    /// Nothing is known yet of what gathers.
    pub(crate) const fn new(bytes_max: u64) -> Self {
        Self { bytes_max, alone: 0, own: 0, handed_over: false }
    }

    /// Whether the node itself is to write a batch of `bytes`; `gathered` if it waited behind the
    /// one before.
    pub(crate) const fn is_for_node(&mut self, bytes: u64, gathered: bool) -> bool {
        if gathered {
            self.alone = 0;
        } else if self.handed_over && self.alone < ALONE_MIN {
            self.alone += 1;
        }
        let is_small = bytes <= SMALL_BYTES;
        let is_alone = self.alone >= ALONE_MIN && self.own < PROBE_EVERY;
        let own = bytes <= self.bytes_max && (is_small || is_alone);
        if !own {
            self.own = 0;
        } else if !is_small {
            self.own += 1;
        }
        self.handed_over = !own;
        own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGE: u64 = 24 << 10;

    /// Of `count` large batches, how many the node writes itself.
    fn own(pace: &mut Pace, count: usize, gathered: bool) -> usize {
        (0..count).filter(|_| pace.is_for_node(LARGE, gathered)).count()
    }

    #[test]
    fn without_leave_the_node_writes_nothing() {
        let mut pace = Pace::new(0);
        assert_eq!(own(&mut pace, 100, false), 0);
        assert!(!pace.is_for_node(1, false));
    }

    #[test]
    fn small_batches_are_the_nodes() {
        let mut pace = Pace::new(64 << 10);
        assert!(pace.is_for_node(SMALL_BYTES, true) && pace.is_for_node(1, false));
        let mut pace = Pace::new(100);
        assert!(pace.is_for_node(100, false) && !pace.is_for_node(101, false));
    }

    #[test]
    fn large_ones_are_the_nodes_while_they_are_alone() {
        let mut pace = Pace::new(64 << 10);
        assert_eq!(own(&mut pace, 5, false), 1, "four show that they are alone");
        let later = own(&mut pace, 1000, false);
        assert!((900..1000).contains(&later), "{later}: one of sixteen is a probe");
        assert_eq!(own(&mut pace, 1, true), 0);
        assert_eq!(own(&mut pace, 3, false), 0, "one gathered behind another");
        assert_eq!(own(&mut pace, 100, true), 0);
    }

    #[test]
    fn a_batch_beyond_the_limit_is_never_the_nodes() {
        let mut pace = Pace::new(LARGE - 1);
        assert_eq!(own(&mut pace, 100, false), 0);
    }
}
