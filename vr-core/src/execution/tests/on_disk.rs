//! A state that is on disk by itself: when it is made durable, and what a start makes of it.

use std::cell::RefCell;

use super::*;
use crate::{
    execution::{checkpoint::CheckpointFailure, work::Restored},
    model::{
        certificate::CertificateHash,
        companion::{Persisted, StateOnDisk},
        config::Config,
        types::GroupId,
    },
    ports::state_machine::OnDisk,
};

const GROUP: GroupId = GroupId(5);
const CERTIFICATE: CertificateHash = CertificateHash(6);

thread_local! {
    /// The disks of a test.
    static DISKS: RefCell<Vec<Content>> = const { RefCell::new(Vec::new()) };
}

/// A disk, by its number.
#[derive(Clone, Copy)]
struct Disk(usize);

impl Default for Disk {
    fn default() -> Self {
        DISKS.with_borrow_mut(|disks| {
            disks.push(Content::default());
            Self(disks.len() - 1)
        })
    }
}

/// What a disk holds: operations, and the companion.
#[derive(Default)]
struct Content {
    durable: Option<(Vec<Bytes>, Bytes)>,
    persisted: Vec<u64>,
    resets: u32,
    full: bool,
}

impl Disk {
    fn with<T>(&self, look: impl FnOnce(&mut Content) -> T) -> T {
        DISKS.with_borrow_mut(|disks| look(&mut disks[self.0]))
    }
}

/// Remembers operations, on disk.
struct Ledger(Disk, Vec<Bytes>);

impl RawStateMachine for Ledger {
    fn apply(&mut self, _: &Context, operation: &Bytes) -> Result<Bytes, Malformed> {
        self.1.push(operation.clone());
        Ok(Bytes::copy_from_slice(&self.1.len().to_le_bytes()))
    }

    fn query(&self, _: &QueryContext, _: Bytes) -> Result<Bytes, Malformed> {
        Ok(Bytes::from(format!("{} ", self.1.len())))
    }

    fn snapshot(&self, out: &mut SnapshotWriter<'_>) -> Result<(), SnapshotError> {
        out.write_value(&self.1)
    }

    fn restore(&mut self, from: &mut SnapshotReader<'_>) -> Result<(), SnapshotError> {
        self.1 = from.read_value()?;
        Ok(())
    }

    fn on_disk(&mut self) -> Option<&mut dyn OnDisk> {
        Some(self)
    }
}

impl OnDisk for Ledger {
    fn persisted(&mut self) -> Result<Option<Bytes>, SnapshotError> {
        let durable = self.0.with(|content| content.durable.clone());
        Ok(durable.map(|(operations, companion)| {
            self.1 = operations;
            companion
        }))
    }

    fn persist(&mut self, applied: OpNumber, companion: &Bytes) -> Result<(), SnapshotError> {
        self.0.with(|content| {
            if content.full {
                return Err(SnapshotError::Unreadable);
            }
            content.durable = Some((self.1.clone(), companion.clone()));
            content.persisted.push(applied.0);
            Ok(())
        })
    }

    fn reset(&mut self) -> Result<(), SnapshotError> {
        self.1.clear();
        self.0.with(|content| content.resets += 1);
        Ok(())
    }
}

fn open(disk: &Disk, persist_ops: u32) -> (Executor, StateOnDisk) {
    let mut executor = Executor::new(Box::new(Ledger(*disk, Vec::new())), WINDOW);
    let config = Config { persist_ops, ..Config::default() };
    let found = executor.open_state(GROUP, &config).unwrap().expect("it is on disk");
    (executor, found)
}

fn belong(executor: &mut Executor) {
    executor.push(Work::Belong { certificate: CERTIFICATE });
}

/// A registration and `count` requests of one client, and the last of them once more.
fn session(count: u64) -> Vec<Entry> {
    let mut entries = vec![register(1, ALICE, 9)];
    entries.extend((1..=count).map(|number| request(number + 1, ALICE, 1, number)));
    entries.push(request(count + 2, ALICE, 1, count));
    entries
}

#[test]
fn it_is_made_durable_every_so_many_ops_and_when_it_is_asked_for() {
    let disk = Disk::default();
    let (mut executor, found) = open(&disk, 3);
    assert_eq!(found, StateOnDisk::Empty);
    belong(&mut executor);
    run(&mut executor, session(6));
    assert_eq!(disk.with(|content| content.persisted.clone()), [3, 6]);
    for _ in 0..2 {
        executor.push(Work::Persist);
        finish(&mut executor);
    }
    assert_eq!(disk.with(|content| content.persisted.clone()), [3, 6, 8]);
}

#[test]
fn nothing_is_made_durable_before_the_group_is_known() {
    let disk = Disk::default();
    let (mut executor, _) = open(&disk, 1);
    run(&mut executor, session(2));
    assert_eq!(disk.with(|content| content.persisted.clone()), Vec::<u64>::new());
    belong(&mut executor);
    finish(&mut executor);
    assert_eq!(disk.with(|content| content.persisted.clone()), [4]);
}

/// Wherever a crash comes, the entries behind the last durable one make the same of everything.
#[test]
fn a_start_goes_on_where_the_disk_is_and_executes_nothing_twice() {
    let entries = session(6);
    let (mut steady, _) = open(&Disk::default(), 0);
    let replies = run(&mut steady, entries.clone());
    for crash in 0..=entries.len() {
        for persist_ops in 1..=4 {
            let disk = Disk::default();
            let (mut executor, _) = open(&disk, persist_ops);
            belong(&mut executor);
            run(&mut executor, entries[..crash].to_vec());
            let (mut executor, found) = open(&disk, persist_ops);
            let from = match found {
                StateOnDisk::At(at) => {
                    assert_eq!((at.group, at.certificate), (GROUP, CERTIFICATE));
                    usize::try_from(at.op_number.0).unwrap()
                }
                StateOnDisk::Empty => 0,
                StateOnDisk::Unreadable => panic!("nobody damaged it"),
            };
            assert!(crash - from < usize::try_from(persist_ops).unwrap());
            executor.push(Work::Resume);
            let again = run(&mut executor, entries[from..].to_vec());
            assert_eq!(again, replies[from..]);
            assert_eq!(executor.digest().unwrap(), steady.digest().unwrap());
        }
    }
}

#[test]
fn whoever_goes_on_tells_of_the_sessions() {
    let disk = Disk::default();
    let (mut executor, _) = open(&disk, 1);
    belong(&mut executor);
    run(&mut executor, session(2));
    let (mut executor, found) = open(&disk, 1);
    let last = session(2).last().unwrap().header;
    let at = Persisted {
        group: GROUP,
        certificate: CERTIFICATE,
        op_number: OpNumber(4),
        checksum: last.checksum,
        time: Duration::from_nanos(last.time),
    };
    assert_eq!(found, StateOnDisk::At(at));
    assert!(executor.take_finished().is_none(), "nothing happened yet");
    executor.push(Work::Resume);
    let Executed { through, restored, .. } = finish(&mut executor).executed;
    let Some(Restored { op_number, sessions, .. }) = restored else { panic!("it says so") };
    assert_eq!((through, op_number, sessions.len()), (OpNumber(4), OpNumber(4), 1));
    assert_eq!(sessions[0].done, RequestNumber(2));
}

#[test]
fn a_state_of_no_use_is_emptied() {
    let disk = Disk::default();
    let (mut executor, _) = open(&disk, 1);
    belong(&mut executor);
    run(&mut executor, session(2));
    let (mut executor, _) = open(&disk, 1);
    assert_eq!(count(&mut executor), "2");
    executor.push(Work::Discard);
    assert_eq!((count(&mut executor).as_str(), executor.applied()), ("0", OpNumber::ZERO));
    assert_eq!(run(&mut executor, session(1)).len(), 3);
}

#[test]
fn a_damaged_companion_is_found_out_and_its_state_emptied() {
    let disk = Disk::default();
    let (mut executor, _) = open(&disk, 1);
    belong(&mut executor);
    run(&mut executor, session(2));
    let (state, companion) = disk.with(|content| content.durable.clone()).unwrap();
    for at in (0..companion.len()).step_by(7) {
        let mut damaged = companion.to_vec();
        damaged[at] ^= 4;
        disk.with(|content| content.durable = Some((state.clone(), damaged.into())));
        let resets = disk.with(|content| content.resets);
        let (mut executor, found) = open(&disk, 1);
        assert_eq!(found, StateOnDisk::Unreadable);
        assert_eq!(disk.with(|content| content.resets), resets + 1);
        assert_eq!(count(&mut executor), "0");
    }
}

#[test]
fn a_disk_that_fails_stops_the_executor() {
    let disk = Disk::default();
    let (mut executor, _) = open(&disk, 2);
    belong(&mut executor);
    disk.with(|content| content.full = true);
    run(&mut executor, session(6));
    let failure = executor.take_failure();
    assert!(
        matches!(failure, Some(CheckpointFailure::OnDisk { op_number: OpNumber(2), .. })),
        "{failure:?}"
    );
    assert_eq!(executor.applied(), OpNumber(2));
}
