//! Panics that become part of a report: caught with their place, and not printed on the way.

use core::{
    any::Any,
    cell::{Cell, RefCell},
};
use std::{
    panic::{self, AssertUnwindSafe, PanicHookInfo},
    sync::Once,
};

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    static LAST: RefCell<Option<String>> = const { RefCell::new(None) };
}

static INSTALLED: Once = Once::new();

/// A panic that was caught.
pub(super) struct Caught {
    /// What it said, and below it where.
    pub(super) message: String,
    /// What it can be continued with.
    pub(super) payload: Box<dyn Any + Send>,
}

/// Runs `work`; a panic in it is returned and not printed.
///
/// # Errors
/// The panic.
pub(super) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, Caught> {
    INSTALLED.call_once(install);
    DEPTH.set(DEPTH.get() + 1);
    let done = panic::catch_unwind(AssertUnwindSafe(work));
    DEPTH.set(DEPTH.get().saturating_sub(1));
    done.map_err(|payload| {
        let message = LAST.take().unwrap_or_else(|| text_of(payload.as_ref()).to_owned());
        Caught { message, payload }
    })
}

/// Leaves other threads, and this one outside [`caught`], to the hook that was there.
fn install() {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
        if DEPTH.get() == 0 {
            before(info);
            return;
        }
        let place = info.location().map(|place| format!("\n(at {place})")).unwrap_or_default();
        LAST.set(Some(format!("{}{place}", text_of(info.payload()))));
    }));
}

fn text_of(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_returned_with_its_place() {
        assert!(caught(|| 1).is_ok_and(|one| one == 1));
        let message = caught(|| panic!("{} wolves", 3)).err().map(|caught| caught.message);
        assert!(message.is_some_and(|text| text.starts_with("3 wolves\n(at vr-sim/src/check/")));
    }

    #[test]
    fn an_inner_panic_does_not_change_what_an_outer_one_says() {
        let outer = caught(|| {
            assert!(caught(|| panic!("inner")).is_err());
            panic!("outer")
        });
        assert!(outer.is_err_and(|caught| caught.message.starts_with("outer")));
    }
}
