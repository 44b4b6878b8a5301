//! Whether a forward pass is being traced: what is written down then must run on any device, so that the ways that suit
//! this machine's processor are not taken.

use std::cell::Cell;

thread_local! {
    static ON: Cell<bool> = const { Cell::new(false) };
}

pub(crate) fn is_on() -> bool {
    ON.get()
}

/// Runs `f` with it on, in this thread.
pub(crate) fn on<T>(f: impl FnOnce() -> T) -> T {
    let before = ON.replace(true);
    let result = f();
    ON.set(before);
    result
}
