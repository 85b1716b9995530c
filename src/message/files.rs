//! Folders of files: what a browser loads beside the pages.

use std::fs::Metadata;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use http::StatusCode;
use http::header::{self, HeaderValue};

use crate::message::accept::weight_of_coding;
use crate::message::http_error::HttpError;
use crate::message::into_response::IntoResponse;
use crate::message::redirect::redirect;
use crate::message::request::Request;
use crate::message::response::Response;
use crate::message::static_file::{StaticFile, static_file};

/// What stands behind the name of a file that is the same, compressed, and what the coding is called; what is the
/// smallest comes first.
const CODINGS: [(&str, &str); 2] = [("br", ".br"), ("gzip", ".gz")];

const NO_CACHE: HeaderValue = HeaderValue::from_static("no-cache");
// Not `public`: what a request with `Authorization` gets is for no shared cache to keep (RFC 9111 section 3.5).
const IMMUTABLE: HeaderValue = HeaderValue::from_static("max-age=31536000, immutable");

/// A folder whose files [`App::files`](crate::App::files) serves. A path is one with the defaults:
///
/// | | |
/// |---|---|
/// | a path that ends in a slash | its `index.html`; a folder without the slash is sent there |
/// | `app.js.br`, `app.js.gz` beside `app.js` | go out in its place where the client takes that coding, with `Vary: Accept-Encoding`; one that is older than `app.js` does not |
/// | a name with a hash, as bundlers write them | `Cache-Control: public, max-age=31536000, immutable` (RFC 8246) |
/// | any other | `Cache-Control: no-cache`: the browser asks each time, and a 304 is the answer unless it has changed |
/// | a name with a dot at its begin, such as `.env` | a 404 |
///
/// Everything else is as with [`static_file`]: types, ranges, conditional requests, what leads out of the
/// folder.
///
/// ```
/// use bottle_session::{App, Files};
/// use std::time::Duration;
///
/// let mut app = App::new();
/// # let dist = std::env::temp_dir();
/// // All that the bundler wrote has a hash in its name.
/// app.files("/assets", Files::of(&dist).immutable(|_| true));
/// app.files("/pictures", Files::of(&dist).max_age(Duration::from_secs(3600)));
/// # app.build()?;
/// # Ok::<(), bottle_session::Error>(())
/// ```
pub struct Files {
    folder: PathBuf,
    max_age: Option<Duration>,
    immutable: Box<dyn Fn(&str) -> bool + Send + Sync>,
}

impl Files {
    /// The files of this folder and of those in it. The path counts from where the program was started.
    pub fn of(folder: impl Into<PathBuf>) -> Files {
        Files { folder: folder.into(), max_age: None, immutable: Box::new(has_hash) }
    }

    /// How long browsers and caches keep a file without asking, unless it is immutable. Unless set they ask each time.
    #[must_use]
    pub fn max_age(mut self, age: Duration) -> Files {
        self.max_age = Some(age);
        self
    }

    /// Which files never change under their names, so that browsers keep them for a year and do not ask: those for whose
    /// path below the folder this is true. Unless set, those whose names hold a hash in front of the extension, behind a
    /// dot or a dash: eight or more hexadecimal digits with a letter and a decimal digit among them
    /// (`app.3f2a9c1b.js`), or eight letters and digits that change between capitals, small letters and digits
    /// four times or more (`app-BkqTcVLN.js`).
    #[must_use]
    pub fn immutable(mut self, is_so: impl Fn(&str) -> bool + Send + Sync + 'static) -> Files {
        self.immutable = Box::new(is_so);
        self
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The answer to a request for this file.
    pub(crate) fn answer(&self, request: &Request, file: &str) -> Response {
        let index = file.is_empty() || file.ends_with('/');
        let name = if index { format!("{file}index.html") } else { file.to_owned() };
        let whole = static_file(request, &name, &self.folder);
        let found = self.metadata(&name);
        if found.as_ref().is_some_and(Metadata::is_dir) && !index {
            return self.to_index(request, file);
        }
        let cache = if (self.immutable)(&name) {
            IMMUTABLE
        } else {
            self.max_age.map_or(NO_CACHE, |age| {
                let value = format!("max-age={}", age.as_secs());
                HeaderValue::from_str(&value).unwrap_or(NO_CACHE)
            })
        };
        let precompressed =
            found.map(|found| self.precompressed(&name, &found)).unwrap_or_default();
        let best = precompressed.iter().copied().max_by_key(|(coding, _)| {
            // Of two that weigh the same, the first one.
            let place = CODINGS.iter().position(|known| known.0 == *coding);
            (weight_of_coding(request.headers(), coding), std::cmp::Reverse(place))
        });
        let accepted = best.filter(|(coding, _)| weight_of_coding(request.headers(), coding) > 0);
        let answer = |mut file: StaticFile| {
            if !precompressed.is_empty() {
                file = file.with_header(header::VARY, "Accept-Encoding");
            }
            file.with_header(header::CACHE_CONTROL, cache.clone()).into_response()
        };
        let compressed = accepted.map(|(coding, ending)| {
            let file = static_file(request, &format!("{name}{ending}"), &self.folder)
                .content_type(whole.type_of_content())
                .with_header(header::CONTENT_ENCODING, coding);
            answer(file)
        });
        // One that may not be read, or leads out of the folder, does not hide the file.
        compressed.filter(|sent| sent.error().is_none()).unwrap_or_else(|| answer(whole))
    }

    /// What is under this name, where the name leads to nothing outside of the folder by itself. Links are looked at where
    /// the file is opened.
    fn metadata(&self, name: &str) -> Option<Metadata> {
        let relative = Path::new(name.trim_start_matches('/'));
        let inside = relative.components().all(|part| matches!(part, Component::Normal(_)));
        inside.then(|| self.folder.join(relative).metadata().ok())?
    }

    /// The compressed forms of a file that are there and not older than it.
    fn precompressed(&self, name: &str, found: &Metadata) -> Vec<(&'static str, &'static str)> {
        let is_current = |sibling: &Metadata| {
            let times = sibling.modified().ok().zip(found.modified().ok());
            sibling.is_file() && times.is_some_and(|(sibling, own)| sibling >= own)
        };
        let there = |(_, ending): &(_, &str)| {
            self.metadata(&format!("{name}{ending}")).is_some_and(|sibling| is_current(&sibling))
        };
        CODINGS.into_iter().filter(there).collect()
    }

    /// Sends the browser to the page of a folder, whose relative links need the slash.
    fn to_index(&self, request: &Request, file: &str) -> Response {
        let index = static_file(request, &format!("{file}/index.html"), &self.folder);
        if !index.is_there() {
            return HttpError::new(StatusCode::NOT_FOUND).into_response();
        }
        // A relative address, so that no path (`//elsewhere.example`) becomes the name of a host.
        let last = request.path().rsplit('/').next().unwrap_or_default();
        let query = match request.query_string() {
            "" => String::new(),
            query => format!("?{query}"),
        };
        redirect(format!("./{last}/{query}")).temporary().into_response()
    }
}

impl<P: Into<PathBuf>> From<P> for Files {
    fn from(folder: P) -> Files {
        Files::of(folder)
    }
}

impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Files").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// Whether a name holds what a bundler makes of the file's content, and no word, date or number.
fn has_hash(name: &str) -> bool {
    let name = name.rsplit('/').next().unwrap_or(name);
    // As in `app.3f2a9c1b.js.map`.
    let name = name.strip_suffix(".map").unwrap_or(name);
    let Some((stem, _)) = name.rsplit_once('.') else { return false };
    let Some((_, part)) = stem.rsplit_once(['.', '-']) else { return false };
    is_hex_hash(part) || (part.len() == 8 && changes(part) >= 4)
}

fn is_hex_hash(part: &str) -> bool {
    part.len() >= 8
        && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        && part.bytes().any(|byte| byte.is_ascii_digit())
        && part.bytes().any(|byte| byte.is_ascii_lowercase())
}

/// How often a text of letters and digits changes between capitals, small letters and digits.
fn changes(part: &str) -> usize {
    let kind = |byte: u8| match byte {
        b'0'..=b'9' => 0,
        b'a'..=b'z' => 1,
        b'A'..=b'Z' => 2,
        _ => 3,
    };
    let kinds: Vec<u8> = part.bytes().map(kind).collect();
    match kinds.contains(&3) {
        true => 0,
        false => kinds.windows(2).filter(|pair| pair[0] != pair[1]).count(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_in_a_name_is_told_from_words_dates_and_numbers() {
        for name in [
            "app.3f2a9c1b.js",
            "app-3f2a9c1b.js",
            "css/site.0123456789abcdef0123.css",
            "app.3f2a9c1b.js.map",
            "index-BkqTcVLN.js",
            "chunk-5iSw4ZKd.js",
        ] {
            assert!(has_hash(name), "{name}");
        }
        for name in [
            "app.js",
            "3f2a9c1b.js",
            "photo-20261130.jpg",
            "jquery-3.7.1.min.js",
            "bootstrap-datepicker.js",
            "guide-Chapter1.pdf",
            "page-MainPage.js",
            "report-december2026.pdf",
            "facade-deadbeef.js",
            "app-3f2a9c1b",
            "3f2a9c1b/app.js",
        ] {
            assert!(!has_hash(name), "{name}");
        }
    }
}
