//! Named stories among replicas, stepped by hand; the list is in docs/TESTING.md.

mod scenario {
    mod checkpoints;
    mod client_retry;
    mod clock;
    mod crash;
    mod duel_of_primaries;
    mod first_boot;
    mod flood;
    mod force;
    mod forgotten;
    mod group_size;
    mod handoff;
    mod leases;
    mod lost_log;
    mod many;
    mod on_disk;
    mod partition;
    mod reads;
    mod repeat;
    mod storage;
    mod tickets;
    mod view_change;
    mod wiped_disk;
}
