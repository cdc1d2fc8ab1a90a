//! Locks that outlive a panic, and what is handed over behind one.

use core::{
    mem,
    sync::atomic::{AtomicBool, Ordering},
};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The lock, also when a thread panicked with it: who panics stops its node, and what is told
/// about a stopped node must still be readable.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is left for one who takes it, and who sees without the lock when nothing is there: a driver
/// looks several times in each turn.
#[derive(Debug, Default)]
pub(crate) struct Left<T> {
    inside: Mutex<T>,
    /// Something was left since it was taken last; written under the lock.
    is_there: AtomicBool,
}

impl<T: Default> Left<T> {
    /// Leaves something. Whoever takes it has to be woken after this.
    pub(crate) fn leave<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let mut inside = lock(&self.inside);
        let done = change(&mut inside);
        self.is_there.store(true, Ordering::Release);
        done
    }

    /// Whether there is anything to take.
    pub(crate) fn is_there(&self) -> bool {
        self.is_there.load(Ordering::Acquire)
    }

    /// Everything that was left since the last time.
    pub(crate) fn take(&self) -> T {
        if !self.is_there() {
            return T::default();
        }
        let mut inside = lock(&self.inside);
        self.is_there.store(false, Ordering::Release);
        mem::take(&mut inside)
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, thread};

    use super::*;

    #[test]
    fn what_is_left_is_taken_once() {
        let left = Left::<Vec<u32>>::default();
        assert!(!left.is_there() && left.take().is_empty());
        assert_eq!(left.leave(|numbers| (numbers.push(1), numbers.len()).1), 1);
        left.leave(|numbers| numbers.push(2));
        assert!(left.is_there() && left.take() == [1, 2] && !left.is_there());
        assert!(left.take().is_empty());
    }

    #[test]
    fn nothing_that_another_thread_leaves_is_missed() {
        let left = Arc::new(Left::<Vec<u32>>::default());
        let theirs = Arc::clone(&left);
        let thread = thread::spawn(move || {
            for number in 0..10_000 {
                theirs.leave(|numbers| numbers.push(number));
            }
        });
        let mut taken = Vec::new();
        while taken.len() < 10_000 {
            taken.extend(left.take());
            thread::yield_now();
        }
        thread.join().unwrap();
        assert!(taken.into_iter().eq(0..10_000) && !left.is_there());
    }
}
