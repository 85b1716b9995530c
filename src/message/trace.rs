//! Backtraces of errors and panics, for apps that are being debugged. Nobody else pays for them.

use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::panic;
use std::sync::{Arc, Once};

thread_local! {
    /// Whether what this thread runs is being debugged.
    static WANTED: Cell<bool> = const { Cell::new(false) };
    /// That of the last panic meanwhile.
    static PANICKED: RefCell<Option<Arc<Backtrace>>> = const { RefCell::new(None) };
}

/// Runs a function, and has errors and panics in it keep their backtraces if that is wanted.
pub(crate) fn traced<R>(wanted: bool, run: impl FnOnce() -> R) -> R {
    if !wanted {
        return run();
    }
    let before = WANTED.replace(true);
    let done = run();
    WANTED.set(before);
    done
}

/// The backtrace of this place, where it is wanted.
pub(crate) fn here() -> Option<Arc<Backtrace>> {
    WANTED.get().then(|| Arc::new(Backtrace::force_capture()))
}

/// The backtrace of the panic that was just caught on this thread, where it is wanted.
pub(crate) fn of_panic() -> Option<Arc<Backtrace>> {
    PANICKED.take()
}

/// Has panics leave their backtraces, beside what happens at a panic anyway.
pub(crate) fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if let Some(backtrace) = here() {
                PANICKED.set(Some(backtrace));
            }
            before(panic);
        }));
    });
}
