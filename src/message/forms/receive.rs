//! A multipart form on its way in: text into memory, files into memory or a temporary file.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;

use super::multipart::{Event, Parser, Part};
use super::upload::Content;
use super::{
    Entry, FormData, FormError, FormLimits, Problem, Upload, Value, check_charset, malformed,
};
use crate::message::body::{BodyStream, FormBody};
use crate::{Error, Result};

/// How much of one file is kept in memory.
const MAX_FILE_IN_MEMORY: usize = 256 * 1024;

/// How much of all files is.
const MAX_FILES_IN_MEMORY: usize = 1024 * 1024;

/// How much is read at once.
const PIECE: usize = 64 * 1024;

pub(super) fn receive(
    body: FormBody<'_>,
    boundary: &str,
    limits: FormLimits,
) -> Result<FormData, FormError> {
    let parser = Parser::new(boundary, limits.count);
    let receiver =
        Receiver { form: FormData::default(), limits, file: None, in_memory: 0, spool: None };
    match body {
        FormBody::Whole(bytes) => of_whole(bytes, parser, receiver),
        FormBody::Stream(stream) => of_stream(stream, parser, receiver),
    }
}

fn of_whole(
    body: &Bytes,
    mut parser: Parser,
    mut receiver: Receiver,
) -> Result<FormData, FormError> {
    let mut at = 0;
    loop {
        let (taken, event) = parser.next(&body[at..], true).map_err(malformed)?;
        match event {
            // The parser says so only where more can come.
            Event::More => return Err(malformed("it breaks off")),
            Event::Part(part) => receiver.begin(part)?,
            Event::Content(range) => {
                receiver.share(body.slice(at + range.start..at + range.end))?
            }
            Event::PartEnd => receiver.end()?,
            Event::End => return Ok(receiver.form),
        }
        at += taken;
    }
}

fn of_stream(
    mut body: BodyStream,
    mut parser: Parser,
    mut receiver: Receiver,
) -> Result<FormData, FormError> {
    let mut buffer = vec![0; PIECE];
    // What has arrived and is not done with. The parser never leaves as much as a buffer holds.
    let (mut begin, mut end, mut ended) = (0, 0, false);
    loop {
        let (taken, event) = parser.next(&buffer[begin..end], ended).map_err(malformed)?;
        match event {
            Event::More => {
                buffer.copy_within(begin + taken..end, 0);
                (begin, end) = (0, end - begin - taken);
                let read = body.read(&mut buffer[end..]).map_err(FormError::body)?;
                end += read;
                ended = read == 0;
                continue;
            }
            Event::Part(part) => receiver.begin(part)?,
            Event::Content(range) => {
                receiver.copy(&buffer[begin + range.start..begin + range.end])?;
            }
            Event::PartEnd => receiver.end()?,
            Event::End => return Ok(receiver.form),
        }
        begin += taken;
    }
}

/// Gathers the fields and files of a form.
struct Receiver {
    form: FormData,
    limits: FormLimits,
    /// The file that is arriving.
    file: Option<Arriving>,
    /// How many bytes of files are in memory.
    in_memory: usize,
    /// The temporary file, once there is one, and how much is in it.
    spool: Option<(Arc<File>, u64)>,
}

struct Arriving {
    part: Part,
    content: Content,
    /// What of it is in memory, where it arrives in pieces.
    pieces: Vec<u8>,
}

impl Receiver {
    fn begin(&mut self, part: Part) -> Result<(), FormError> {
        let begin = self.form.buffer.len();
        self.form.buffer.extend_from_slice(&part.name);
        let end = self.form.buffer.len();
        match part.filename {
            None => {
                part.content_type.as_deref().map_or(Ok(()), check_charset)?;
                self.form.entries.push(Entry::new(begin..end, Value::Text(end..end)));
            }
            Some(_) => {
                self.form.entries.push(Entry::new(begin..end, Value::NoFile));
                let content = Content::Memory(Bytes::new());
                self.file = Some(Arriving { part, content, pieces: Vec::new() });
            }
        }
        self.form.check_last(self.limits)
    }

    /// The whole content of a part, which stays where it is.
    fn share(&mut self, bytes: Bytes) -> Result<(), FormError> {
        match &mut self.file {
            None => self.text(&bytes),
            Some(file) => {
                file.content = Content::Memory(bytes);
                self.check_file()
            }
        }
    }

    /// The next bytes of a part.
    fn copy(&mut self, bytes: &[u8]) -> Result<(), FormError> {
        let Some(file) = &mut self.file else { return self.text(bytes) };
        match &mut file.content {
            Content::Spooled { length, .. } => {
                *length += bytes.len() as u64;
                self.spool(bytes)?;
            }
            Content::Memory(_)
                if file.pieces.len() + bytes.len() > MAX_FILE_IN_MEMORY
                    || self.in_memory + bytes.len() > MAX_FILES_IN_MEMORY =>
            {
                let before = std::mem::take(&mut file.pieces);
                self.in_memory -= before.len();
                let length = (before.len() + bytes.len()) as u64;
                let (spool, start) = match &self.spool {
                    Some((spool, end)) => (spool.clone(), *end),
                    None => {
                        let spool = Arc::new(tempfile::tempfile().map_err(not_spooled)?);
                        self.spool = Some((spool.clone(), 0));
                        (spool, 0)
                    }
                };
                if let Some(file) = &mut self.file {
                    file.content = Content::Spooled { file: spool, start, length };
                }
                self.spool(&before)?;
                self.spool(bytes)?;
            }
            Content::Memory(_) => {
                self.in_memory += bytes.len();
                file.pieces.extend_from_slice(bytes);
            }
        }
        self.check_file()
    }

    fn spool(&mut self, bytes: &[u8]) -> Result<(), FormError> {
        let Some((file, end)) = &mut self.spool else { return Ok(()) };
        (&**file).write_all(bytes).map_err(not_spooled)?;
        *end += bytes.len() as u64;
        Ok(())
    }

    fn text(&mut self, bytes: &[u8]) -> Result<(), FormError> {
        self.form.buffer.extend_from_slice(bytes);
        if let Some(Entry { value: Value::Text(text), .. }) = self.form.entries.last_mut() {
            text.end = self.form.buffer.len();
        }
        self.form.check_last(self.limits)
    }

    fn check_file(&self) -> Result<(), FormError> {
        let Some(file) = &self.file else { return Ok(()) };
        let length = match &file.content {
            Content::Spooled { length, .. } => *length,
            Content::Memory(bytes) => (bytes.len() + file.pieces.len()) as u64,
        };
        if length <= self.limits.file {
            return Ok(());
        }
        let field = String::from_utf8_lossy(&file.part.name);
        let problem = Problem::TooLarge(self.limits.file);
        Err(FormError::field(StatusCode::PAYLOAD_TOO_LARGE, &field, problem))
    }

    fn end(&mut self) -> Result<(), FormError> {
        let Some(Arriving { part, mut content, pieces }) = self.file.take() else { return Ok(()) };
        if !pieces.is_empty() {
            content = Content::Memory(pieces.into());
        }
        let raw_filename = part.filename.unwrap_or_default();
        let is_empty = matches!(&content, Content::Memory(bytes) if bytes.is_empty());
        // What browsers send for a control in which no file was chosen.
        if raw_filename.is_empty() && is_empty {
            return Ok(());
        }
        let field = String::from_utf8_lossy(&part.name).into_owned();
        let upload = Upload::new(field, raw_filename, part.content_type, content);
        if let Some(entry) = self.form.entries.last_mut() {
            entry.value = Value::File(upload);
        }
        Ok(())
    }
}

fn not_spooled(error: std::io::Error) -> FormError {
    let folder = std::env::temp_dir();
    let text = format!("an upload cannot be kept in {}: {error}", folder.display());
    FormError::body(Error::new(crate::ErrorKind::Io, text))
}
