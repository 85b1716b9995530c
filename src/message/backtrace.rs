//! Backtraces of errors and panics, for apps that are being debugged. Others do not pay for them.

use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::panic;
use std::sync::{Arc, Once};

thread_local! {
    /// Whether what this thread runs is being debugged.
    static ENABLED: Cell<bool> = const { Cell::new(false) };
    /// The backtrace of the last panic.
    static LAST_PANIC: RefCell<Option<Arc<Backtrace>>> = const { RefCell::new(None) };
}

/// Runs a function. If `enabled`, errors and panics in it capture their backtraces.
pub(crate) fn with_backtraces<R>(enabled: bool, run: impl FnOnce() -> R) -> R {
    if !enabled {
        return run();
    }
    let before = ENABLED.replace(true);
    let done = run();
    ENABLED.set(before);
    done
}

/// The backtrace of the caller, if backtraces are enabled.
pub(crate) fn capture() -> Option<Arc<Backtrace>> {
    ENABLED.get().then(|| Arc::new(Backtrace::force_capture()))
}

/// The backtrace of the panic that was just caught on this thread, if backtraces are enabled.
pub(crate) fn of_last_panic() -> Option<Arc<Backtrace>> {
    LAST_PANIC.take()
}

/// Has the panic hook capture backtraces, and call the former hook.
pub(crate) fn install_panic_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if let Some(backtrace) = capture() {
                LAST_PANIC.set(Some(backtrace));
            }
            before(panic);
        }));
    });
}
