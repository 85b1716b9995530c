//! Uploaded files: in memory while they are small, in a temporary file otherwise.

use std::cell::Cell;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use icu_normalizer::ComposingNormalizerBorrowed;
use serde::de::{Deserialize, Deserializer, Error as _, Visitor};

use crate::{Error, ErrorKind, Result};

/// A file that came with a form: a field of type `Upload`, `Option<Upload>` or `Vec<Upload>` in a
/// [`Form`](crate::Form), or [`FormData::file`](super::FormData::file).
///
/// Up to 256 KiB it is kept in memory, above that in a temporary file (in [`std::env::temp_dir`]), which is gone
/// once the last clone is, and also where the process is killed. Clones share the content.
///
/// ```
/// use bottle_session::{Form, Result, Upload};
/// use serde::Deserialize;
///
/// #[derive(Deserialize)]
/// struct NewPicture {
///     title: String,
///     picture: Upload,
/// }
///
/// fn add(Form(new): Form<NewPicture>) -> Result<String> {
///     let path = new.picture.save_to("/srv/app/pictures")?;
///     Ok(format!("{} is now {}", new.title, path.display()))
/// }
/// # let _ = add;
/// ```
#[derive(Clone)]
pub struct Upload(Arc<Inner>);

struct Inner {
    field: String,
    filename: String,
    raw_filename: String,
    content_type: Option<String>,
    content: Content,
}

/// Where the bytes of a file are.
#[derive(Clone, Debug)]
pub(super) enum Content {
    Memory(Bytes),
    /// A part of the one temporary file that a form has.
    Spooled {
        file: Arc<File>,
        start: u64,
        length: u64,
    },
}

impl Upload {
    pub(super) fn new(
        field: String,
        raw_filename: String,
        content_type: Option<String>,
        content: Content,
    ) -> Upload {
        let filename = safe_name(&raw_filename);
        Upload(Arc::new(Inner { field, filename, raw_filename, content_type, content }))
    }

    /// The name of the form's control.
    pub fn field(&self) -> &str {
        &self.0.field
    }

    /// A name that is safe as the name of a file: the last component of the client's, in letters of every script
    /// (composed: NFC), without control characters, the marks `<>:"|?*`, dots in front, and spaces and dots at
    /// the end; at most 255 bytes, never empty (`empty` stands in), never one that Windows keeps for devices. Two
    /// files can have the same, and one on the disk as well.
    pub fn filename(&self) -> &str {
        &self.0.filename
    }

    /// The name that the client sent. It can be anything: `../../etc/passwd`.
    pub fn raw_filename(&self) -> &str {
        &self.0.raw_filename
    }

    /// The type that the client sent. It can be anything, whatever the content is.
    pub fn content_type(&self) -> Option<&str> {
        self.0.content_type.as_deref()
    }

    /// How many bytes the file has.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u64 {
        match &self.0.content {
            Content::Memory(bytes) => bytes.len() as u64,
            Content::Spooled { length, .. } => *length,
        }
    }

    /// The whole content in memory, wherever it was.
    pub fn bytes(&self) -> Result<Bytes> {
        match &self.0.content {
            Content::Memory(bytes) => Ok(bytes.clone()),
            Content::Spooled { .. } => {
                let mut bytes = Vec::new();
                self.reader().read_to_end(&mut bytes)?;
                Ok(bytes.into())
            }
        }
    }

    /// Reads the content from its beginning, a piece at a time. Several readers do not disturb each other.
    pub fn reader(&self) -> UploadReader {
        UploadReader { content: self.0.content.clone(), at: 0 }
    }

    /// Saves the file in this folder, which must be there, under its safe [`filename`](Upload::filename), and returns the path.
    ///
    /// What is there stays: where something has that name already, even a broken link, the file is saved under
    /// another one (`photo-1f6b0c92.jpg`). A file that could not be written to its end is removed.
    pub fn save_to(&self, folder: impl AsRef<Path>) -> Result<PathBuf> {
        let folder = folder.as_ref();
        match self.save(folder.join(self.filename())) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let mut random = [0; 4];
                getrandom::fill(&mut random).map_err(io::Error::other)?;
                let mark = format!("-{:08x}", u32::from_ne_bytes(random));
                let path = folder.join(marked(self.filename(), &mark));
                self.save(path.clone()).map_err(|error| not_saved(&path, error))
            }
            saved => saved.map_err(|error| not_saved(&folder.join(self.filename()), error)),
        }
    }

    /// Saves the file in this folder, which must be there, under a name of the app's, and returns the path.
    ///
    /// It is an error, and nothing is written, where the name would lead out of the folder (`..`, `a/b`, an absolute
    /// path), and where something has it already.
    pub fn save_as(&self, folder: impl AsRef<Path>, name: &str) -> Result<PathBuf> {
        let mut components = Path::new(name).components();
        let alone = matches!((components.next(), components.next()), (Some(Component::Normal(only)), None) if only == name);
        if !alone || name.contains(['/', '\\', ':', '\0']) {
            let text =
                format!("{name:?} cannot be the name of an upload: it must be one component");
            return Err(Error::new(ErrorKind::Input, text));
        }
        let path = folder.as_ref().join(name);
        self.save(path.clone()).map_err(|error| not_saved(&path, error))
    }

    fn save(&self, path: PathBuf) -> io::Result<PathBuf> {
        // Neither an existing file nor what a link points to is ever opened.
        let mut file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        let copied = io::copy(&mut self.reader(), &mut file).and_then(|_| file.flush());
        match copied {
            Ok(()) => Ok(path),
            Err(error) => {
                drop(file);
                let _ = std::fs::remove_file(&path);
                Err(error)
            }
        }
    }
}

fn not_saved(path: &Path, error: io::Error) -> Error {
    let text = format!("the upload cannot be saved as {}: {error}", path.display());
    Error::new(ErrorKind::Io, text).with_source(error)
}

/// Shows the control's name and the size: names of files are the visitor's own business.
impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload").field("field", &self.0.field).field("len", &self.len()).finish()
    }
}

/// Reads an [`Upload`]; see [`Upload::reader`].
///
/// ```
/// use bottle_session::{App, Form, Result, TestClient, Upload};
/// use serde::Deserialize;
/// use std::io::Read;
///
/// #[derive(Deserialize)]
/// struct Sent {
///     file: Upload,
/// }
///
/// let mut app = App::new();
/// app.post("/", |Form(sent): Form<Sent>| -> Result<String> {
///     let mut reader = sent.file.reader();
///     let mut start = [0; 4];
///     reader.read_exact(&mut start)?;
///     Ok(if &start == b"%PDF" { "a PDF" } else { "something else" }.to_owned())
/// });
/// # app.build()?;
/// # Ok::<(), bottle_session::Error>(())
/// ```
#[derive(Debug)]
pub struct UploadReader {
    content: Content,
    at: u64,
}

impl Read for UploadReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = match &self.content {
            Content::Memory(bytes) => {
                let at = usize::try_from(self.at).unwrap_or(usize::MAX).min(bytes.len());
                (&bytes[at..]).read(buffer)?
            }
            Content::Spooled { file, start, length } => {
                let left = length.saturating_sub(self.at);
                let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                read_at(file, &mut buffer[..most], start + self.at)?
            }
        };
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for UploadReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let end = match &self.content {
            Content::Memory(bytes) => bytes.len() as u64,
            Content::Spooled { length, .. } => *length,
        };
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => end.checked_add_signed(by),
        };
        self.at = at.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}

#[cfg(unix)]
fn read_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buffer, at)
}

#[cfg(windows)]
fn read_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, buffer, at)
}

thread_local! {
    /// An upload on its way through serde, which has no files: whoever asks for an `Upload` finds it here.
    static HANDED: Cell<Option<Upload>> = const { Cell::new(None) };
}

/// By this name the deserializer of forms knows that an upload is asked for.
pub(super) const NAME: &str = "$bottle_session::Upload";

impl Upload {
    /// Gives the upload to the visitor of an `Upload`.
    pub(super) fn hand_to<'de, V: Visitor<'de>, E: serde::de::Error>(
        self,
        visitor: V,
    ) -> Result<V::Value, E> {
        HANDED.set(Some(self));
        let taken = visitor.visit_newtype_struct(serde::de::value::UnitDeserializer::new());
        HANDED.set(None);
        taken
    }
}

impl<'de> Deserialize<'de> for Upload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Upload, D::Error> {
        struct Taking;

        impl<'de> Visitor<'de> for Taking {
            type Value = Upload;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a file of a multipart form")
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(self, _: D) -> Result<Upload, D::Error> {
                HANDED.take().ok_or_else(|| {
                    D::Error::custom("an Upload is a field of a Form, not behind #[serde(flatten)]")
                })
            }
        }

        deserializer.deserialize_newtype_struct(NAME, Taking)
    }
}

const MAX_NAME_BYTES: usize = 255;

fn safe_name(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let composed = ComposingNormalizerBorrowed::new_nfc().normalize(last);
    let safe: String = composed.chars().filter(|c| !is_dangerous(*c)).collect();
    // In front: hidden files and `..`. At the end: what Windows drops.
    let safe = safe.trim_start_matches(|c: char| c == '.' || c.is_whitespace());
    let safe = safe.trim_end_matches(|c: char| c == '.' || c.is_whitespace());
    match safe {
        "" => "empty".to_owned(),
        safe if is_device(safe) => marked(&format!("_{safe}"), ""),
        safe => marked(safe, ""),
    }
}

/// Controls, what no file on Windows can have in its name, and what makes a name look like another one: marks that
/// turn the direction of writing or are not seen. The joiners U+200C and U+200D belong to the spelling of some scripts.
fn is_dangerous(c: char) -> bool {
    c.is_control()
        || "<>:\"|?*".contains(c)
        || matches!(c, '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
        || c == char::REPLACEMENT_CHARACTER
}

/// Names that Windows keeps for devices, with any extension.
fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().trim_end().to_uppercase();
    let numbered = |port| {
        stem.strip_prefix(port).is_some_and(|number| {
            matches!(number, "¹" | "²" | "³") || matches!(number.as_bytes(), [b'0'..=b'9'])
        })
    };
    ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"].contains(&&stem[..])
        || numbered("COM")
        || numbered("LPT")
}

/// The name with a mark in front of its extension, shortened where it is too long. A short extension stays whole.
fn marked(name: &str, mark: &str) -> String {
    let extension = name.rfind('.').filter(|at| *at > 0 && name.len() - at <= 20);
    let (stem, extension) = name.split_at(extension.unwrap_or(name.len()));
    let mut most = stem.len().min(MAX_NAME_BYTES - extension.len() - mark.len());
    while !stem.is_char_boundary(most) {
        most -= 1;
    }
    let stem = &stem[..most];
    format!("{}{mark}{extension}", stem.trim_end_matches(|c: char| c == '.' || c.is_whitespace()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filename_keeps_its_letters_and_loses_what_is_dangerous() {
        for (raw, safe) in [
            ("a.txt", "a.txt"),
            ("文件 é.pdf", "文件 é.pdf"),
            ("文件 e\u{301}.pdf", "文件 é.pdf"),
            ("naïve.txt", "naïve.txt"),
            ("日本", "日本"),
            ("مرحبا.doc", "مرحبا.doc"),
            ("My Holiday (1).JPG", "My Holiday (1).JPG"),
            ("../../etc/passwd", "passwd"),
            ("C:\\dir\\a.txt", "a.txt"),
            ("a.txt:stream", "a.txtstream"),
            ("..", "empty"),
            ("/", "empty"),
            ("", "empty"),
            (" . ", "empty"),
            ("...", "empty"),
            (".htaccess", "htaccess"),
            (" .. .htaccess", "htaccess"),
            ("a\0b\r\n.sh", "ab.sh"),
            ("a\u{202e}txt.exe", "atxt.exe"),
            ("\u{feff}a\u{200b}.txt", "a.txt"),
            ("نامه\u{200c}ای.txt", "نامه\u{200c}ای.txt"),
            ("a.txt... ", "a.txt"),
            ("con", "_con"),
            ("NUL.txt", "_NUL.txt"),
            ("com7.tar.gz", "_com7.tar.gz"),
            ("lpt¹", "_lpt¹"),
            ("console.log", "console.log"),
            (&"x".repeat(300), &"x".repeat(255)),
            (&"é".repeat(200), &"é".repeat(127)),
            (&format!("{}.gz", "x".repeat(254)), &format!("{}.gz", "x".repeat(252))),
            (&format!("a.{}", "x".repeat(300)), &format!("a.{}", "x".repeat(253))),
        ] {
            let name = safe_name(raw);
            assert_eq!(name, safe, "{raw:?}");
            assert!(name.len() <= MAX_NAME_BYTES);
            assert_eq!(safe_name(&name), name, "it is safe already");
        }
    }

    #[test]
    fn a_reader_seeks_as_a_file_does() {
        let content = Content::Memory(Bytes::from_static(b"0123456789"));
        let upload = Upload::new("f".into(), "a".into(), None, content);
        let mut reader = upload.reader();
        let mut read_from = |to| {
            reader.seek(to).unwrap();
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            text
        };
        assert_eq!(read_from(SeekFrom::Start(7)), "789");
        assert_eq!(read_from(SeekFrom::End(-2)), "89");
        assert_eq!(read_from(SeekFrom::Current(-1)), "9");
        assert_eq!(read_from(SeekFrom::Start(99)), "");
        assert!(upload.reader().seek(SeekFrom::Current(-1)).is_err());
    }
}
