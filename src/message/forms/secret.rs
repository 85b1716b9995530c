//! Text that is never shown again.

use std::cell::Cell;
use std::fmt;

use serde::de::{Deserialize, Deserializer};
use subtle::ConstantTimeEq;

/// A field of a form that nobody is shown again: a password.
///
/// A [`FormError`](crate::FormError) does not keep it, no log and no `Debug` shows it, and it cannot be serialized or
/// displayed. Two of them are compared in the same time wherever they differ.
///
/// ```
/// use bottle_session::{Form, Secret};
/// use serde::Deserialize;
///
/// #[derive(Debug, Deserialize)]
/// struct Login {
///     user: String,
///     password: Secret,
/// }
///
/// fn log_in(Form(login): Form<Login>) -> String {
///     if login.password.expose() == "123456" { "really?".into() } else { format!("{login:?}") }
/// }
/// # let login: Login = serde_json::from_str(r#"{"user": "ada", "password": "hunter2"}"#).unwrap();
/// # assert_eq!(log_in(Form(login)), r#"Login { user: "ada", password: Secret }"#);
/// ```
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// The text.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Secret) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl Eq for Secret {}

thread_local! {
    /// A secret was asked for since this was last taken.
    static ASKED: Cell<bool> = const { Cell::new(false) };
}

/// Whether a secret was asked for on this thread since the last call.
pub(super) fn take_asked() -> bool {
    ASKED.replace(false)
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
        // Also where it fails: what is no text may be a password all the same.
        ASKED.set(true);
        String::deserialize(deserializer).map(Secret)
    }
}

/// For the rules `length`, `length(chars)`, `pattern`, `contains` and the like; `matches` goes by equality.
#[cfg(feature = "garde")]
mod checks {
    use garde::rules::AsStr;
    use garde::rules::length::{HasChars, HasSimpleLength};

    use super::Secret;

    impl AsStr for Secret {
        fn as_str(&self) -> &str {
            &self.0
        }
    }

    impl HasSimpleLength for Secret {
        fn length(&self) -> usize {
            self.0.len()
        }
    }

    impl HasChars for Secret {
        fn num_chars(&self) -> usize {
            self.0.chars().count()
        }
    }
}
