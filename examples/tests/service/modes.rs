//! Groups that keep less on disk: what their processes need, say, and survive.

use std::time::Duration;

use vr_core::Durability;
use vr_examples::kv::{client::Info, demo::fleet::Fleet};

use crate::{
    processes::{ask, demo_is_clean, group_of_three, refused, serve_elsewhere_in},
    storm::kv,
};

/// How long anything may take here; far more than it needs.
const PATIENCE: Duration = Duration::from_secs(60);
const WITHOUT_LOG: [Durability; 2] = [Durability::ViewOnly, Durability::Diskless];

async fn group_in(mode: Durability, dir: &std::path::Path) -> Fleet {
    let mut fleet = Fleet::new(kv(), dir.to_owned(), 3).unwrap().with_durability(mode);
    fleet.start_all().unwrap();
    fleet.wait_until_normal(PATIENCE).await.unwrap();
    fleet
}

#[tokio::test]
async fn the_demo_loses_nothing_with_promises_on_disk() {
    demo_is_clean(Durability::ViewOnly).await;
}

#[tokio::test]
async fn the_demo_loses_nothing_with_nothing_on_disk() {
    demo_is_clean(Durability::Diskless).await;
}

#[tokio::test]
async fn each_replica_that_dies_alone_comes_back_with_everything() {
    for mode in WITHOUT_LOG {
        let dir = tempfile::tempdir().unwrap();
        let mut fleet = group_in(mode, dir.path()).await;
        for victim in 0..3 {
            let key = format!("k{victim}");
            assert_eq!(ask(&fleet, victim, &["SET", &key, "v"]).await, "OK");
            fleet.kill(&[victim]).await.unwrap();
            fleet.start(victim).unwrap();
            fleet.wait_until_normal(PATIENCE).await.unwrap();
            for read in 0..=victim {
                assert_eq!(ask(&fleet, victim, &["GET", &format!("k{read}")]).await, "v");
            }
        }
        let info = fleet.info(2).await.unwrap();
        assert_eq!(info.text("durability"), mode.to_string());
        let forgot = if mode == Durability::Diskless { 1 } else { 0 };
        assert_eq!(info.number("incarnation"), forgot, "in {mode}");
        assert_eq!(fleet.data_dir(2).exists(), mode == Durability::ViewOnly);
    }
}

#[tokio::test]
async fn a_group_without_disks_that_lost_all_says_so_and_is_founded_only_on_demand() {
    let dir = tempfile::tempdir().unwrap();
    let mut fleet = group_in(Durability::Diskless, dir.path()).await;
    assert_eq!(ask(&fleet, 0, &["SET", "k", "v"]).await, "OK");
    fleet.kill(&[0, 1, 2]).await.unwrap();
    fleet.start_all().unwrap();
    let explained = |info: &Info| {
        let words = info.text("explanation");
        info.text("status") == "blank"
            && words.contains("no member of the group \"kv\" remembers it")
            && words.contains("for a first start give the members --found")
    };
    fleet.wait_for(0, PATIENCE, explained).await.unwrap();
}

#[tokio::test]
async fn a_member_of_another_mode_is_refused_and_both_ends_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut fleet = group_of_three(dir.path()).await;
    fleet.kill(&[1]).await.unwrap();
    fleet = fleet.with_durability(Durability::Diskless);
    fleet.start(1).unwrap();
    for end in [0, 1] {
        let explained = |info: &Info| {
            let words = info.text("explanation");
            // Either of the two may have been the one that called last.
            words.contains("durability mode")
                && words.contains("full")
                && words.contains("diskless")
                && words.contains("start all members in the same mode")
        };
        fleet.wait_for(end, PATIENCE, explained).await.unwrap();
    }
    assert_eq!(ask(&fleet, 2, &["SET", "k", "v"]).await, "OK");
}

#[tokio::test]
async fn a_directory_of_another_mode_is_refused_and_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let mut fleet = group_of_three(dir.path()).await;
    ask(&fleet, 1, &["SET", "k", "v"]).await;
    fleet.kill(&[1]).await.unwrap();
    let (members, data) = (fleet.members().to_owned(), fleet.data_dir(1));
    let (code, text) = serve_elsewhere_in("view-only", &members, "1", &data);
    assert_eq!(code, 4, "{text}");
    assert!(text.contains("mode Full") && text.contains("mode ViewOnly"), "{text}");
    assert!(text.contains("nothing was changed"), "{text}");
    fleet.start(1).unwrap();
    fleet.wait_for(1, PATIENCE, Info::is_normal).await.unwrap();
    assert_eq!(ask(&fleet, 1, &["GET", "k"]).await, "v");
}

#[test]
fn a_mode_with_a_disk_needs_a_directory_and_an_unknown_mode_is_named() {
    let serve = ["--replica", "0", "--members", "127.0.0.1:0", "--resp", "127.0.0.1:0"];
    for (mode, expected) in [
        ("full", "--data is missing: with --durability full"),
        ("view-only", "run the whole group with --durability diskless"),
        ("none", "'none' is none of full, view-only, diskless"),
    ] {
        let (code, text) = refused(&[&serve[..], &["--durability", mode]].concat());
        assert_eq!(code, 2, "{text}");
        assert!(text.contains(expected), "{text}");
    }
}
