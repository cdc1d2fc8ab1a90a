//! A storage on the bench: opened, written to and read from, with what it must hold beside it.

use crate::{
    conformance::{
        report::{Failure, Outcome, ensure},
        storage::{
            content::{Content, checkpoint_of, identity, summary},
            harness::{Crash, Harness},
        },
    },
    model::{checkpoint::Draft, durable::Identity, entry::Entry, types::OpNumber},
    ports::storage::{Opened, Recovered, StorageError, WriteBatch},
};

/// One storage at a time.
pub(crate) struct Bench<'a> {
    pub(crate) harness: &'a mut dyn Harness,
    /// What the storage must hold.
    pub(crate) content: Content,
    opened: Option<Opened>,
}

impl<'a> Bench<'a> {
    /// A fresh storage, closed.
    pub(crate) fn new(harness: &'a mut dyn Harness) -> Self {
        harness.fresh();
        Self { harness, content: Content::new(), opened: None }
    }

    /// Begins again with a fresh storage, closed.
    pub(crate) fn begin_again(&mut self) {
        self.close();
        self.harness.fresh();
        self.content = Content::new();
    }

    /// Opens as `identity`, beside whatever is open.
    pub(crate) async fn open_as(&mut self, identity: &Identity) -> Result<Opened, StorageError> {
        self.harness.storage().open(identity).await
    }

    /// Opens, and tells what was found without comparing it.
    pub(crate) async fn try_open(&mut self) -> Result<Recovered, StorageError> {
        self.close();
        let opened = self.harness.storage().open(&identity()).await?;
        let recovered = opened.recovered.clone();
        self.opened = Some(opened);
        Ok(recovered)
    }

    /// Opens, and requires that exactly the content is found and can be read.
    pub(crate) async fn open(&mut self) -> Outcome {
        let possible = [self.content.clone()];
        self.open_to_one_of(&possible, "").await.map(drop)
    }

    /// Opens, and requires that one of `possible` is found, which becomes the content.
    pub(crate) async fn open_to_one_of(
        &mut self,
        possible: &[Content],
        when: &str,
    ) -> Result<Recovered, Failure> {
        let recovered = self
            .try_open()
            .await
            .map_err(|error| Failure(format!("It cannot be opened{when}: {error} ({error:?}).")))?;
        let found = possible.iter().find(|content| content.is(&recovered));
        let Some(found) = found else {
            let expected: Vec<String> = possible.iter().map(Content::summary).collect();
            return Err(Failure(format!(
                "It was opened{when} and has {}; it should have {}. Headers and superblock are \
                 compared field by field.",
                summary(&recovered),
                expected.join(", or ")
            )));
        };
        self.content = found.clone();
        self.check_readable(when).await?;
        Ok(recovered)
    }

    /// Drops writer and reader, as the end of a process does.
    pub(crate) fn close(&mut self) {
        self.opened = None;
    }

    /// Closes and opens, and requires that the content is found again.
    pub(crate) async fn reopen(&mut self) -> Outcome {
        self.close();
        self.open().await
    }

    /// Closes, lets the process end like this, and opens.
    pub(crate) async fn reopen_after(&mut self, crash: Crash) -> Outcome {
        self.close();
        self.harness.restart(crash);
        self.open().await
    }

    /// What is open.
    pub(crate) fn opened(&mut self) -> Result<&mut Opened, Failure> {
        self.opened.as_mut().ok_or_else(|| Failure("the storage is not open".to_owned()))
    }

    /// Writes, the checkpoint that the superblock names first, whatever comes of it; the content stays as it is.
    pub(crate) async fn try_write(&mut self, batch: &WriteBatch) -> Result<(), StorageError> {
        let Some(opened) = &mut self.opened else { return Err(StorageError::Poisoned) };
        let named = batch.superblock.as_ref().map(|superblock| superblock.checkpoint);
        if let Some(id) = named.filter(|id| id.op_number > OpNumber::ZERO) {
            let (chunk, manifest) = checkpoint_of(id.op_number.0);
            let draft = Draft::Own(id.op_number);
            opened.checkpoints.put(&draft, 0, &chunk)?;
            opened.checkpoints.complete(&draft, &id, &manifest)?;
        }
        opened.writer.write(batch.clone()).await
    }

    /// Notes that everything is synced, whatever comes of it.
    pub(crate) async fn try_mark_idle(&mut self) -> Result<(), StorageError> {
        match &mut self.opened {
            Some(opened) => opened.writer.mark_idle().await,
            None => Err(StorageError::Poisoned),
        }
    }

    /// Writes, and requires success.
    pub(crate) async fn write(&mut self, batch: WriteBatch) -> Outcome {
        let written = self.try_write(&batch).await;
        written.map_err(|error| {
            Failure(format!("A write failed that should not: {error} ({error:?})."))
        })?;
        self.content.apply(&batch);
        Ok(())
    }

    /// Appends entries with payloads of these sizes.
    pub(crate) async fn append(&mut self, sizes: &[usize]) -> Outcome {
        self.write(self.content.append(sizes)).await
    }

    /// Notes that everything is synced, and requires success.
    pub(crate) async fn mark_idle(&mut self) -> Outcome {
        let noted = self.try_mark_idle().await;
        noted.map_err(|error| Failure(format!("mark_idle failed: {error} ({error:?}).")))
    }

    /// Reads, whatever comes of it.
    pub(crate) async fn try_read(
        &self,
        from: u64,
        through: u64,
        bytes_max: u64,
    ) -> Result<Vec<Entry>, StorageError> {
        match &self.opened {
            Some(opened) => {
                opened.reader.entries(OpNumber(from), OpNumber(through), bytes_max).await
            }
            None => Err(StorageError::Poisoned),
        }
    }

    /// Reads, and requires exactly the content's entries from `from` up to `last`.
    pub(crate) async fn read(
        &self,
        (from, through, bytes_max): (u64, u64, u64),
        last: u64,
    ) -> Outcome {
        let what = format!("entries({from}, {through}, {bytes_max})");
        let read = self.try_read(from, through, bytes_max).await;
        let read = read.map_err(|error| Failure(format!("{what} failed: {error} ({error:?}).")))?;
        let expected: Vec<Entry> =
            (from..=last).filter_map(|op_number| self.content.entry(op_number).cloned()).collect();
        ensure(read == expected, || {
            let ops: Vec<u64> = read.iter().map(|entry| entry.header.op_number.0).collect();
            format!(
                "{what} returned ops {ops:?}; it should have returned ops {from}..={last}, as they \
                 were written, header and payload."
            )
        })
    }

    /// Requires that reading `op_number` says that it is missing.
    pub(crate) async fn read_nothing(&self, from: u64, through: u64) -> Outcome {
        let read = self.try_read(from, through, u64::MAX).await;
        ensure(matches!(read, Err(StorageError::Missing { .. })), || {
            format!(
                "entries({from}, {through}, ..) returned {read:?}; it should have returned \
                 StorageError::Missing."
            )
        })
    }

    /// Requires that every entry above the checkpoint can be read, alone and with the others.
    pub(crate) async fn check_readable(&self, when: &str) -> Outcome {
        let (first, last) = (self.content.checkpoint() + 1, self.content.op_number());
        let read = async {
            for op_number in first..=last {
                self.read((op_number, op_number, 0), op_number).await?;
            }
            if first <= last {
                self.read((first, u64::MAX, u64::MAX), last).await?;
            }
            self.read_nothing(last + 1, last + 1).await
        };
        let read: Outcome = read.await;
        read.map_err(|Failure(why)| Failure(format!("Opened{when}: {why}")))
    }
}
