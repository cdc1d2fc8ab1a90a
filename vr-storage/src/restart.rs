//! Beginning a group from a log that is there: restored as a group of its own, or by force as the
//! next epoch of one that lost too much. Offline, and nothing is left half made.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use vr_core::{
    Checkpoints as _, Durability, Membership, OpNumber, ReplicaId, WriteBatch,
    model::{
        certificate::{Certificate, Inheritance, Means},
        checkpoint::Draft,
        durable::{CheckpointId, Identity, Superblock, Trust, genesis_checksum},
        entry::EntryHeader,
        export::LogFacts,
        types::{Checksum, DiskId, Epoch},
    },
};

use crate::{
    disk::{Disk, RealDisk},
    export::{CopyError, sync_parent},
    file::{options::StoreOptions, store::Store},
    source::{LogSource, describe},
};

/// The directories of a group that begins with a log.
#[derive(Debug)]
pub struct Begun {
    /// The certificate that names all their disks.
    pub certificate: Certificate,
    /// The membership period.
    pub epoch: Epoch,
    /// The last op that all of them hold.
    pub op_number: OpNumber,
    /// Each member and its directory.
    pub directories: Vec<(ReplicaId, PathBuf)>,
}

/// Makes the directories of a new group, `group_name` with `members`, that begins with the log of
/// `source`: one for each member, `replica-ID` in the directory `into`.
///
/// The group runs in [`Durability::Full`], because its log begins on disk. A directory, or an export
/// with the tail, may end with operations that were never acknowledged; the new group executes
/// them. Sessions, times, views and op numbers are those of the log; the entries are chained anew,
/// so that nothing of the new group passes for something of the old one. `entropy` draws disk ids.
///
/// # Errors
/// [`CopyError::Refused`] when the name and members are those of the old group, or a part of the
/// log is lost; [`CopyError::Exists`] when a directory is there; otherwise what is wrong with the
/// source or the disk. Nothing is made then.
pub fn restore(
    source: LogSource,
    group_name: &str,
    members: &Membership,
    into: &Path,
    entropy: &mut dyn FnMut() -> u128,
) -> Result<Begun, CopyError> {
    let group = members.group_id(group_name);
    if source.facts().trust == Trust::Lost {
        let reason = format!("{} is no backup: take another one", describe(source.facts()));
        return Err(CopyError::Refused { reason });
    }
    if group == source.facts().group {
        return Err(CopyError::Refused {
            reason: format!(
                "the log is that of group {group_name:?} with the same members, and a second one \
                 of that name would be taken for it: choose another name, or restart the group by \
                 force if it is lost"
            ),
        });
    }
    let plan = Plan {
        group_name: group_name.to_owned(),
        members: members.clone(),
        means: Means::Restored,
        epoch: Epoch::ZERO,
        rechained: true,
    };
    plan.carry_out(source, into, entropy)
}

/// Restarts the group of `source` by force, as the next epoch with its log: makes a directory for
/// each member, `replica-ID` in the directory `into`.
///
/// **What `source` does not hold is lost**, also what was acknowledged. The certificate says so, of
/// the latest sixteen such restarts. The new epoch runs in [`Durability::Full`], whatever the group ran in: its log begins on
/// disk. `others` are what else survived: a source that is worse than one of them is refused
/// unless `although_worse`. `entropy` draws disk ids.
///
/// # Errors
/// [`CopyError::Refused`] when another survivor is better or the log is no evidence;
/// [`CopyError::Exists`] when a directory is there; otherwise what is wrong with the source or the
/// disk. Nothing is made then.
pub fn unsafe_restart(
    source: LogSource,
    others: &[LogFacts],
    although_worse: bool,
    into: &Path,
    entropy: &mut dyn FnMut() -> u128,
) -> Result<Begun, CopyError> {
    forced(source.facts(), others, although_worse)?.carry_out(source, into, entropy)
}

/// As [`unsafe_restart`], on disks that are there, and empty: one for each member, in order. For
/// who keeps no directories. Returns the certificate; before that, none of the disks counts.
///
/// # Errors
/// As [`unsafe_restart`].
pub fn unsafe_restart_on<D: Disk>(
    mut source: LogSource,
    others: &[LogFacts],
    although_worse: bool,
    disks: Vec<D>,
    entropy: &mut dyn FnMut() -> u128,
) -> Result<Certificate, CopyError> {
    let plan = forced(source.facts(), others, although_worse)?;
    let members = plan.members.voters().iter().copied();
    plan.fill(&mut source, members.zip(disks).collect(), entropy)
}

/// How the group of `facts` is restarted by force, unless something better survived.
fn forced(facts: &LogFacts, others: &[LogFacts], although_worse: bool) -> Result<Plan, CopyError> {
    let refuse = |reason: String| Err(CopyError::Refused { reason });
    if let Some(stranger) = others.iter().find(|other| other.group != facts.group) {
        let (theirs, ours) = (&stranger.group_name, &facts.group_name);
        return refuse(format!("the candidates are of two groups, {ours:?} and {theirs:?}"));
    }
    let better =
        others.iter().filter(|other| other.rank() > facts.rank()).max_by_key(|it| it.rank());
    if let Some(better) = better.filter(|_| !although_worse) {
        return refuse(format!(
            "{} is worse than {}; take that one, or say that a worse one is meant",
            describe(facts),
            describe(better)
        ));
    }
    if facts.trust == Trust::Lost && !although_worse {
        return refuse(format!("{} is not evidence of anything", describe(facts)));
    }
    // An epoch that anybody has heard of is not begun once more.
    let heard = others.iter().chain([facts]).map(|facts| facts.latest_epoch);
    let epoch = heard.max().unwrap_or(facts.epoch).next();
    Ok(Plan {
        group_name: facts.group_name.clone(),
        members: facts.members.clone(),
        means: Means::Forced,
        epoch,
        rechained: false,
    })
}

/// What is to be made of a log.
struct Plan {
    group_name: String,
    members: Membership,
    means: Means,
    epoch: Epoch,
    /// The entries are made those of another group.
    rechained: bool,
}

impl Plan {
    fn carry_out(
        &self,
        mut source: LogSource,
        into: &Path,
        entropy: &mut dyn FnMut() -> u128,
    ) -> Result<Begun, CopyError> {
        let mut staged = Staged::prepare(self.members.voters(), into)?;
        let mut disks = Vec::new();
        for (replica, path) in staged.paths() {
            let disk = RealDisk::open(path).map_err(|source| CopyError::Io {
                action: "create",
                path: path.to_owned(),
                source,
            })?;
            disks.push((replica, disk));
        }
        let certificate = self.fill(&mut source, disks, entropy)?;
        let directories = staged.finish()?;
        let op_number = source.facts().op_number;
        Ok(Begun { certificate, epoch: self.epoch, op_number, directories })
    }

    /// Writes the log to all `disks`, and what makes it count.
    fn fill<D: Disk>(
        &self,
        source: &mut LogSource,
        disks: Vec<(ReplicaId, D)>,
        entropy: &mut dyn FnMut() -> u128,
    ) -> Result<Certificate, CopyError> {
        let mut named = Vec::new();
        let mut blanks = Vec::new();
        let mut stores = Vec::new();
        for (replica, disk) in disks {
            let identity = self.identity(replica, DiskId(entropy()));
            let (recovered, store) = Store::open(disk, &identity, StoreOptions::default())?;
            named.push((replica, identity.fresh_disk));
            blanks.push(recovered.superblock);
            stores.push(store);
        }
        let checkpoint = self.copy_checkpoint(source, &mut stores, &mut blanks)?;
        let head = self.copy(source, checkpoint.checksum, &mut stores)?;
        let certificate = self.certificate(source.facts(), named, head);
        for (store, blank) in stores.iter_mut().zip(blanks) {
            let superblock = Superblock {
                certificate: Some(certificate.clone()),
                epoch: self.epoch,
                view: source.facts().view,
                log_view: source.facts().view,
                ..blank
            };
            store.mark_idle()?;
            // The last thing that is written: before it, the disk is a blank one.
            store.write(&WriteBatch { superblock: Some(superblock), ..WriteBatch::default() })?;
        }
        Ok(certificate)
    }

    fn identity(&self, replica: ReplicaId, fresh_disk: DiskId) -> Identity {
        Identity {
            group: self.members.group_id(&self.group_name),
            group_name: self.group_name.clone(),
            members: self.members.clone(),
            replica,
            durability: Durability::Full,
            fresh_disk,
        }
    }

    /// The checkpoint `of` a log as the new group names it.
    fn checkpoint(&self, of: CheckpointId) -> CheckpointId {
        let start = genesis_checksum(self.members.group_id(&self.group_name));
        let checksum = match (of.op_number, self.rechained) {
            (OpNumber::ZERO, _) => start,
            (_, false) => of.checksum,
            // The new group has no entry there: this stands for the old one's, and is nobody else's.
            (_, true) => {
                Checksum::of(&[start.0.to_le_bytes(), of.checksum.0.to_le_bytes()].concat())
            }
        };
        CheckpointId { checksum, ..of }
    }

    /// Copies the checkpoint into all `stores`, whose superblocks name it then: the log cannot start
    /// after it otherwise. Until there is a certificate, too, they count for nothing.
    fn copy_checkpoint<D: Disk>(
        &self,
        source: &mut LogSource,
        stores: &mut [Store<D>],
        blanks: &mut [Superblock],
    ) -> Result<CheckpointId, CopyError> {
        let id = self.checkpoint(source.facts().checkpoint);
        if id.op_number == OpNumber::ZERO {
            return Ok(id);
        }
        let manifest = source.manifest()?;
        let draft = Draft::Own(id.op_number);
        let places: Vec<_> = stores.iter().map(Store::checkpoints).collect();
        for index in 0..manifest.count() {
            let chunk = source.chunk(index)?;
            places.iter().try_for_each(|place| place.put(&draft, index, &chunk))?;
        }
        places.iter().try_for_each(|place| place.complete(&draft, &id, &manifest))?;
        for (store, blank) in stores.iter_mut().zip(blanks) {
            blank.checkpoint = id;
            let superblock = Some(blank.clone());
            store.write(&WriteBatch { superblock, ..WriteBatch::default() })?;
        }
        Ok(id)
    }

    /// Copies the log into all `stores`, behind `head`; returns the checksum of its last entry there.
    fn copy<D: Disk>(
        &self,
        source: &mut LogSource,
        mut head: Checksum,
        stores: &mut [Store<D>],
    ) -> Result<Checksum, CopyError> {
        let group = self.members.group_id(&self.group_name);
        loop {
            let mut entries = source.next()?;
            if entries.is_empty() {
                return Ok(head);
            }
            for entry in &mut entries {
                if self.rechained {
                    let group = EntryHeader::group_mark(group);
                    let header =
                        EntryHeader { parent: head, group, epoch: self.epoch, ..entry.header };
                    entry.header = header.sealed();
                }
                head = entry.header.checksum;
            }
            for store in stores.iter_mut() {
                store.write(&WriteBatch::of(entries.clone()))?;
            }
        }
    }

    fn certificate(
        &self,
        facts: &LogFacts,
        disks: Vec<(ReplicaId, DiskId)>,
        checksum: Checksum,
    ) -> Certificate {
        let mut certificate = Certificate {
            group_name: self.group_name.clone(),
            disks,
            inherited: facts.certificate.inherited.clone(),
        };
        certificate.inherit(Inheritance {
            means: self.means,
            epoch: self.epoch,
            op_number: facts.op_number,
            checksum,
        });
        certificate
    }
}

/// Directories that get their names when all of them are whole; removed otherwise.
#[derive(Debug)]
struct Staged {
    directories: Vec<(ReplicaId, PathBuf, PathBuf)>,
    done: bool,
}

impl Staged {
    fn prepare(members: &[ReplicaId], into: &Path) -> Result<Self, CopyError> {
        let io =
            |action, path: &Path, source| CopyError::Io { action, path: path.to_owned(), source };
        fs::create_dir_all(into).map_err(|source| io("create", into, source))?;
        let mut staged = Self { directories: Vec::new(), done: false };
        for replica in members {
            let path = into.join(format!("replica-{replica}"));
            let unfinished = into.join(format!(".replica-{replica}.new"));
            if path.exists() {
                return Err(CopyError::Exists { path });
            }
            match fs::remove_dir_all(&unfinished) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(io("remove", &unfinished, source));
                }
                Ok(()) | Err(_) => {}
            }
            staged.directories.push((*replica, unfinished, path));
        }
        Ok(staged)
    }

    fn paths(&self) -> impl Iterator<Item = (ReplicaId, &Path)> {
        self.directories.iter().map(|(replica, unfinished, _)| (*replica, unfinished.as_path()))
    }

    fn finish(&mut self) -> Result<Vec<(ReplicaId, PathBuf)>, CopyError> {
        for (at, (_, unfinished, path)) in self.directories.iter().enumerate() {
            let named = fs::rename(unfinished, path).map_err(|source| CopyError::Io {
                action: "rename",
                path: unfinished.clone(),
                source,
            });
            let named = named.and_then(|()| sync_parent(path));
            if named.is_err() {
                for (_, unfinished, path) in self.directories.iter().take(at + 1) {
                    // What cannot be taken back is in the way of the next attempt, which says so.
                    let _ = fs::rename(path, unfinished);
                }
                named?;
            }
        }
        self.done = true;
        let directories = self.directories.iter();
        Ok(directories.map(|(replica, _, path)| (*replica, path.clone())).collect())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        for (_, unfinished, _) in &self.directories {
            // What cannot be removed is removed by the next attempt.
            let _ = fs::remove_dir_all(unfinished);
        }
    }
}
