//! What happens to sessions, told to whoever wants to know: an observer and counters.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use log::Level;

use crate::Error;
use crate::logging::{OneLine, ThrottledLog};

/// Something that happened to a session or to the store. None of them carries an id.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A new session was stored.
    Created,
    /// The session that was just created is one in which nobody is logged in: a visitor's, or a bot's.
    Anonymous,
    /// A session was found in the store.
    Loaded,
    /// A session moved to a new id.
    Renewed,
    /// A session was destroyed.
    Destroyed,
    /// A session was destroyed, renewed or expired while a request that changed it was running: the
    /// changes were not written.
    WriteLost,
    /// A cookie named a session that the store does not have: expired, destroyed, renewed or made up.
    UnknownId,
    /// A cookie named an id that a [rotation](crate::SessionPlugin::renew_every) had replaced more than ten seconds after the new
    /// id was first used: perhaps a copied cookie. The request has no session, as with an unknown id.
    IdPastGrace,
    /// A cookie held what cannot be an id.
    MalformedId,
    /// A cookie named a session whose record is damaged, or larger than the caps of the store, for this reason:
    /// it is no session, and nothing of it was read. So is one with a sealed value that its key does not open.
    Damaged(&'a Error),
    /// A record did not carry its owner's mark; the connection was closed, the request answered 503.
    Desync,
    /// The store failed; the request that needed it was answered with an error.
    StoreError(&'a Error),
    /// The store stopped answering, for this reason: from now on it is asked four times a second, and
    /// every other request fails at once.
    BreakerOpened(&'a Error),
    /// The store answers again.
    BreakerClosed,
}

/// Hears of [`Event`]s. The default logs the ones that somebody should look at.
///
/// ```
/// use bottle_session::{Event, SessionPlugin};
///
/// // A closure will do.
/// let plugin = SessionPlugin::new().events(|event: Event<'_>| {
///     if let Event::Desync = event {
///         eprintln!("look what stands between the app and Redis");
///     }
/// });
/// # let _ = plugin;
/// ```
pub trait Events: Send + Sync + 'static {
    /// Called on the thread of the request, which waits: be quick. A panic is logged and does no more.
    fn event(&self, event: Event<'_>);
}

/// Writes lost changes, ids that were replaced and damaged records at `warn`, replies that are not to their requests at `error`, the rest at
/// `debug` and below. What happens often has one line when it begins, one a minute, and one when it is over.
///
/// ```
/// use bottle_session::{Event, Events, LogEvents, SessionPlugin};
///
/// /// Writes to the log as ever, and tells somebody.
/// struct Pager;
///
/// impl Events for Pager {
///     fn event(&self, event: Event<'_>) {
///         if let Event::BreakerOpened(error) = &event {
///             eprintln!("the session store is gone: {error}");
///         }
///         LogEvents.event(event);
///     }
/// }
///
/// let plugin = SessionPlugin::new().events(Pager);
/// # let _ = plugin;
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct LogEvents;

impl Events for LogEvents {
    fn event(&self, event: Event<'_>) {
        // One visitor's browser can send a damaged session's cookie as often as it likes.
        static REPEATED: LazyLock<ThrottledLog> = LazyLock::new(ThrottledLog::default);
        match event {
            Event::WriteLost => REPEATED.log_throttled(Level::Warn, "write_lost", || {
                "a session ended while a request that changed it was running: its changes were not saved".to_owned()
            }),
            Event::Damaged(error) => REPEATED.log_throttled(Level::Warn, "damaged", || {
                format!("damaged session data: {}", OneLine(error))
            }),
            Event::IdPastGrace => REPEATED.log_throttled(Level::Warn, "id_past_grace", || {
                "a cookie held a session id that had been replaced by a new one, which somebody uses: perhaps a copied cookie"
                    .to_owned()
            }),
            Event::Desync => REPEATED.log_throttled(Level::Error, "desync", || {
                "a reply belonged to another session: its connection was closed".to_owned()
            }),
            // The request's own error is logged with its path when it is answered.
            Event::StoreError(error) => log::debug!("the session store failed: {}", OneLine(error)),
            Event::Created
            | Event::Anonymous
            | Event::Loaded
            | Event::Renewed
            | Event::Destroyed
            | Event::UnknownId
            | Event::MalformedId
            // The pool logs them itself, for those who use it without sessions.
            | Event::BreakerOpened(_)
            | Event::BreakerClosed => log::trace!("session event: {event:?}"),
        }
    }
}

impl<F: Fn(Event<'_>) + Send + Sync + 'static> Events for F {
    fn event(&self, event: Event<'_>) {
        self(event);
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $field:ident: $pattern:pat,)*) => {
        /// How often each [`Event`] has happened since the plugin was made: a snapshot.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Counts {
            $($(#[$doc])* pub $field: u64,)*
        }

        #[derive(Debug, Default)]
        struct Tally {
            $($field: AtomicU64,)*
        }

        impl Tally {
            fn count(&self, event: &Event<'_>) {
                let counter = match event {
                    $($pattern => &self.$field,)*
                };
                counter.fetch_add(1, Ordering::Relaxed);
            }

            fn snapshot(&self) -> Counts {
                Counts { $($field: self.$field.load(Ordering::Relaxed),)* }
            }
        }

        impl Counts {
            /// Names and values, for a page of metrics.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($field), self.$field)),*].into_iter()
            }
        }
    };
}

counters! {
    /// Sessions stored anew.
    created: Event::Created,
    /// Those of them in which nobody was logged in.
    anonymous: Event::Anonymous,
    /// Sessions found.
    loaded: Event::Loaded,
    /// Sessions that moved to a new id.
    renewed: Event::Renewed,
    /// Sessions destroyed.
    destroyed: Event::Destroyed,
    /// Requests whose changes came too late.
    write_lost: Event::WriteLost,
    /// Cookies of sessions that are not there.
    unknown_id: Event::UnknownId,
    /// Cookies whose ids had been replaced.
    id_past_grace: Event::IdPastGrace,
    /// Cookies that hold no id.
    malformed_id: Event::MalformedId,
    /// Cookies of sessions whose records are damaged or too large.
    damaged: Event::Damaged(_),
    /// Replies that belonged to another session.
    desync: Event::Desync,
    /// Failures of the store.
    store_error: Event::StoreError(_),
    /// How often the store stopped answering.
    breaker_opened: Event::BreakerOpened(_),
    /// How often it answered again.
    breaker_closed: Event::BreakerClosed,
}

/// The counters of one session plugin. Clones count together.
///
/// ```
/// use bottle_session::{App, Counters, Counts, Session, SessionPlugin, TestClient};
///
/// let plugin = SessionPlugin::new().in_memory();
/// let counters: Counters = plugin.counters();
/// let mut app = App::new();
/// app.install(plugin)?;
/// app.get("/", |session: &mut Session| session.set("seen", true));
/// TestClient::new(app)?.get("/").send();
///
/// let counts: Counts = counters.snapshot();
/// assert_eq!((counts.created, counts.destroyed), (1, 0));
/// assert!(counts.iter().any(|(name, count)| name == "created" && count == 1));
/// # Ok::<(), bottle_session::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Counters(Arc<Tally>);

impl Counters {
    /// How often each event has happened so far.
    pub fn snapshot(&self) -> Counts {
        self.0.snapshot()
    }

    pub(crate) fn count(&self, event: &Event<'_>) {
        self.0.count(event);
    }
}
