//! How much one form may hold.

/// How much one form may hold: a setting of a route ([`RouteOptions::config`](crate::RouteOptions::config)), within
/// its [body limit](crate::RouteOptions::body_limit), which is that of all together. What is past it is a 413 that
/// names the field.
///
/// | limit | default |
/// |---|---|
/// | [`field`](FormLimits::field): the text of one field | 1 MiB |
/// | [`text`](FormLimits::text): the text of all fields together | 8 MiB |
/// | [`file`](FormLimits::file): one file | as the body limit |
/// | [`count`](FormLimits::count): fields and files | 1000 |
///
/// ```
/// use bottle_session::{App, Form, FormLimits, Upload};
/// use serde::Deserialize;
///
/// #[derive(Deserialize)]
/// struct Album {
///     pictures: Vec<Upload>,
/// }
///
/// let mut app = App::new();
/// app.post("/album", |Form(album): Form<Album>| format!("{} pictures", album.pictures.len()))
///     .body_limit(200 << 20)
///     .config(FormLimits::new().file(20 << 20).count(50));
/// # app.build()?;
/// # Ok::<(), bottle_session::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FormLimits {
    pub(super) field: u64,
    pub(super) text: u64,
    pub(super) file: u64,
    pub(super) count: usize,
}

impl FormLimits {
    /// The defaults.
    pub const fn new() -> FormLimits {
        FormLimits { field: 1 << 20, text: 8 << 20, file: u64::MAX, count: 1000 }
    }

    /// How many bytes of text one field may have.
    #[must_use]
    pub const fn field(mut self, bytes: u64) -> FormLimits {
        self.field = bytes;
        self
    }

    /// How many bytes of text all fields together may have. This much is held in memory.
    #[must_use]
    pub const fn text(mut self, bytes: u64) -> FormLimits {
        self.text = bytes;
        self
    }

    /// How many bytes one file may have.
    #[must_use]
    pub const fn file(mut self, bytes: u64) -> FormLimits {
        self.file = bytes;
        self
    }

    /// How many fields and files there may be.
    #[must_use]
    pub const fn count(mut self, fields: usize) -> FormLimits {
        self.count = fields;
        self
    }
}

impl Default for FormLimits {
    fn default() -> FormLimits {
        FormLimits::new()
    }
}
