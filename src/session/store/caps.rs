//! How large one session may be.

use crate::{Error, ErrorKind, Result};

/// How much one session may hold.
///
/// ```
/// use bottle_session::Caps;
///
/// assert_eq!(Caps::default(), Caps { fields: 256, bytes: 64 * 1024 });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// How many fields.
    pub fields: usize,
    /// How many bytes all keys and values have together.
    pub bytes: usize,
}

impl Default for Caps {
    fn default() -> Caps {
        Caps { fields: 256, bytes: 64 * 1024 }
    }
}

impl Caps {
    /// Refuses a session of this size.
    pub(crate) fn check(&self, fields: usize, bytes: usize) -> Result<()> {
        if fields > self.fields || bytes > self.bytes {
            return Err(self.exceeded());
        }
        Ok(())
    }

    /// What both allow.
    pub(crate) fn and(&self, other: Caps) -> Caps {
        let (fields, bytes) = (self.fields.min(other.fields), self.bytes.min(other.bytes));
        Caps { fields, bytes }
    }

    pub(crate) fn exceeded(&self) -> Error {
        let Caps { fields, bytes } = self;
        Error::new(
            ErrorKind::Session,
            format!(
                "the session would grow past its caps of {fields} fields and {bytes} bytes, nothing \
                 was written; store less, or raise the caps of the store"
            ),
        )
    }
}
