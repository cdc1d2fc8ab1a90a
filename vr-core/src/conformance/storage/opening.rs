//! Opening: what a fresh storage is, whose it is, and that opening again changes nothing.

use crate::{
    conformance::{
        report::{Failure, Outcome, ensure},
        storage::{bench::Bench, content::identity},
    },
    model::{
        durable::{Durability, Identity},
        membership::Membership,
        types::{DiskId, ReplicaId},
    },
    ports::storage::StorageError,
};

pub(crate) async fn a_fresh_storage_is_blank(bench: &mut Bench<'_>) -> Outcome {
    let blank = [bench.content.clone()];
    let recovered = bench.open_to_one_of(&blank, "").await?;
    ensure(recovered.torn_bytes == 0, || format!("torn bytes in a fresh storage: {recovered:?}"))
}

pub(crate) async fn a_fresh_storage_has_nothing_to_read(bench: &mut Bench<'_>) -> Outcome {
    bench.open().await?;
    bench.read_nothing(1, 1).await?;
    bench.read_nothing(1, u64::MAX).await
}

pub(crate) async fn an_unused_storage_is_still_blank_the_next_time(
    bench: &mut Bench<'_>,
) -> Outcome {
    for _ in 0..3 {
        bench.reopen().await?;
    }
    Ok(())
}

pub(crate) async fn the_disk_id_that_was_drawn_first_stays(bench: &mut Bench<'_>) -> Outcome {
    bench.open().await?;
    bench.close();
    let later = Identity { fresh_disk: DiskId(0xbad), ..identity() };
    let opened = bench.open_as(&later).await;
    let found = opened.map(|opened| opened.recovered.superblock.disk);
    ensure(matches!(found, Ok(DiskId(0xd15c))), || {
        format!(
            "Formatted with disk id d15c and opened with the fresh id bad, it has {found:?}. The \
             id tells a wiped disk from the one that founded the group: it is drawn once."
        )
    })
}

pub(crate) async fn another_group_is_refused(bench: &mut Bench<'_>) -> Outcome {
    refused(bench, |identity| {
        identity.group_name = "other".to_owned();
        identity.group = identity.members.group_id("other");
    })
    .await
}

pub(crate) async fn another_list_of_members_is_refused(bench: &mut Bench<'_>) -> Outcome {
    refused(bench, |identity| {
        if let Ok(members) = Membership::new((0..5).map(ReplicaId)) {
            identity.members = members;
        }
        identity.group = identity.members.group_id("conformance");
    })
    .await
}

pub(crate) async fn another_replica_is_refused(bench: &mut Bench<'_>) -> Outcome {
    refused(bench, |identity| identity.replica = ReplicaId(2)).await
}

pub(crate) async fn another_durability_is_refused(bench: &mut Bench<'_>) -> Outcome {
    refused(bench, |identity| identity.durability = Durability::ViewOnly).await
}

async fn refused(bench: &mut Bench<'_>, change: impl FnOnce(&mut Identity)) -> Outcome {
    bench.open().await?;
    bench.append(&[10]).await?;
    bench.close();
    let mut other = identity();
    change(&mut other);
    let opened = bench.open_as(&other).await;
    match opened {
        Err(StorageError::Foreign { found, expected, .. }) => {
            ensure(!found.is_empty() && found != expected, || {
                format!("The error does not name both sides: {found:?} and {expected:?}.")
            })?;
        }
        Err(error) => {
            return Err(Failure(format!("It should be StorageError::Foreign, and is {error:?}.")));
        }
        Ok(opened) => {
            let found = &opened.recovered.superblock;
            return Err(Failure(format!(
                "{} of group {:?} was let in as {} of group {:?}, {:?}; it must be refused with \
                 StorageError::Foreign.",
                other.replica, other.group_name, found.replica, found.group_name, found.durability
            )));
        }
    }
    bench.open().await
}

pub(crate) async fn a_second_open_is_refused(bench: &mut Bench<'_>) -> Outcome {
    bench.open().await?;
    let second = bench.open_as(&identity()).await;
    ensure(matches!(second, Err(StorageError::InUse { .. })), || {
        format!("Opened twice at once, it should have said StorageError::InUse: {second:?}")
    })?;
    bench.append(&[10]).await?;
    bench.reopen().await
}

pub(crate) async fn opening_often_changes_nothing(bench: &mut Bench<'_>) -> Outcome {
    bench.open().await?;
    bench.append(&[10, 500]).await?;
    bench.write(bench.content.promise(1)).await?;
    bench.write(bench.content.cut(1, &[20, 0])).await?;
    for _ in 0..12 {
        bench.reopen().await?;
    }
    Ok(())
}

pub(crate) async fn a_little_is_written_in_each_life(bench: &mut Bench<'_>) -> Outcome {
    for life in 0..12 {
        bench.reopen().await?;
        bench.append(&[life * 40]).await?;
        if life % 4 == 1 {
            bench.write(bench.content.promise(0)).await?;
        }
    }
    bench.reopen().await
}
