//! Stable storage for `vr-core`: a segmented write-ahead log and a two-copy superblock.

pub mod disk;
pub mod export;
pub mod file;
mod identity;
pub mod inspect;
pub mod memory;
pub mod restart;
pub mod source;

pub use crate::{
    disk::{Disk, RealDisk},
    export::{CopyError, EXPORT_VERSION, ExportReader, ExportWriter, export},
    file::{
        FileStorage,
        checkpoints::FileCheckpoints,
        options::StoreOptions,
        reader::StoreReader,
        record::DISK_VERSION,
        store::Store,
        view_store::{NoLog, ViewStore},
    },
    inspect::{Report, inspect},
    memory::MemoryStorage,
    restart::{Begun, restore, unsafe_restart, unsafe_restart_on},
    source::LogSource,
};
