//! The encodings, over the crates that have them.

use std::io::{self, Read, Write};

use crate::message::response::Body;

/// How much of a stream is compressed at a time.
const PIECE: usize = 32 * 1024;

/// How hard gzip tries, of 9: what is compressed anew for each request is worth no more.
#[cfg(feature = "gzip")]
const GZIP_LEVEL: u32 = 5;

/// How hard brotli tries, of 11.
#[cfg(feature = "brotli")]
const BROTLI_QUALITY: u32 = 4;

/// The window of a stream: 2 to this power.
#[cfg(feature = "brotli")]
const BROTLI_WINDOW: u32 = 18;

/// A content coding of RFC 9110 section 8.4.1, or of RFC 7932.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    #[cfg(feature = "brotli")]
    Brotli,
    #[cfg(feature = "gzip")]
    Gzip,
}

impl Encoding {
    /// The best one first.
    pub(super) const ALL: &[Encoding] = &[
        #[cfg(feature = "brotli")]
        Encoding::Brotli,
        #[cfg(feature = "gzip")]
        Encoding::Gzip,
    ];

    pub(super) fn name(self) -> &'static str {
        self.accepted_as()[0]
    }

    /// What clients call it.
    pub(super) fn accepted_as(self) -> &'static [&'static str] {
        match self {
            #[cfg(feature = "brotli")]
            Encoding::Brotli => &["br"],
            #[cfg(feature = "gzip")]
            Encoding::Gzip => &["gzip", "x-gzip"],
        }
    }
}

/// Compresses what is written to it.
pub(super) enum Encoder {
    #[cfg(feature = "brotli")]
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
    #[cfg(feature = "gzip")]
    Gzip(flate2::write::GzEncoder<Vec<u8>>),
}

impl Encoder {
    /// An encoder for so many bytes, or for a stream.
    pub(super) fn new(encoding: Encoding, length: Option<usize>) -> Encoder {
        let _ = length;
        match encoding {
            #[cfg(feature = "brotli")]
            Encoding::Brotli => {
                // What it allocates and clears grows with the window.
                let bits = |length: usize| (usize::BITS - length.leading_zeros()).clamp(12, 18);
                let window = length.map_or(BROTLI_WINDOW, bits);
                let writer =
                    brotli::CompressorWriter::new(Vec::new(), 4096, BROTLI_QUALITY, window);
                Encoder::Brotli(Box::new(writer))
            }
            #[cfg(feature = "gzip")]
            Encoding::Gzip => {
                let level = flate2::Compression::new(GZIP_LEVEL);
                Encoder::Gzip(flate2::write::GzEncoder::new(Vec::new(), level))
            }
        }
    }

    /// Nothing fails that writes to memory.
    pub(super) fn write(&mut self, bytes: &[u8]) {
        let _ = match self {
            #[cfg(feature = "brotli")]
            Encoder::Brotli(encoder) => encoder.write_all(bytes),
            #[cfg(feature = "gzip")]
            Encoder::Gzip(encoder) => encoder.write_all(bytes),
        };
    }

    /// All that there is so far of what was written, whole enough to be decompressed.
    fn take(&mut self) -> Vec<u8> {
        match self {
            #[cfg(feature = "brotli")]
            Encoder::Brotli(encoder) => {
                let _ = encoder.flush();
                std::mem::take(encoder.get_mut())
            }
            #[cfg(feature = "gzip")]
            Encoder::Gzip(encoder) => {
                let _ = encoder.flush();
                std::mem::take(encoder.get_mut())
            }
        }
    }

    /// The rest, with the end.
    pub(super) fn finish(self) -> Vec<u8> {
        match self {
            #[cfg(feature = "brotli")]
            Encoder::Brotli(encoder) => encoder.into_inner(),
            #[cfg(feature = "gzip")]
            Encoder::Gzip(encoder) => encoder.finish().unwrap_or_default(),
        }
    }
}

/// A body that is compressed while it is read.
pub(super) struct Stream<R> {
    source: R,
    /// Until the source has ended.
    encoder: Option<Encoder>,
    piece: Vec<u8>,
    ready: Vec<u8>,
    sent: usize,
}

impl<R: Read + Send + 'static> Stream<R> {
    pub(super) fn body(encoding: Encoding, source: R) -> Body {
        let encoder = Some(Encoder::new(encoding, None));
        let (piece, ready) = (vec![0; PIECE], Vec::new());
        let reader = Box::new(Stream { source, encoder, piece, ready, sent: 0 });
        Body::Stream { reader, length: None }
    }
}

impl<R: Read> Read for Stream<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.sent == self.ready.len() {
            let Some(encoder) = &mut self.encoder else { return Ok(0) };
            let count = self.source.read(&mut self.piece)?;
            self.sent = 0;
            self.ready = if count > 0 {
                encoder.write(&self.piece[..count]);
                // At once: the next piece may be long in coming.
                encoder.take()
            } else {
                self.encoder.take().map(Encoder::finish).unwrap_or_default()
            };
        }
        let count = (self.ready.len() - self.sent).min(buffer.len());
        buffer[..count].copy_from_slice(&self.ready[self.sent..self.sent + count]);
        self.sent += count;
        Ok(count)
    }
}
