//! Starts a node with the files of one that was there before.

use vr_core::{NodeError, StorageError};

/// Starts a node, as soon as the threads of its predecessor have let go of the files.
pub(crate) async fn once_let_go<T>(mut start: impl AsyncFnMut() -> Result<T, NodeError>) -> T {
    loop {
        match start().await {
            Err(NodeError::Storage(error)) if matches!(*error, StorageError::InUse { .. }) => {
                tokio::task::yield_now().await;
            }
            started => return started.unwrap(),
        }
    }
}
